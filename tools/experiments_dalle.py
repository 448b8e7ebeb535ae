"""The experiments of chapter 9, run by experiments.py: agreement, reranking, words."""

from functools import cache
from typing import Any

import torch
from experiments import machine, store, stored
from torch import Tensor

from ditbook import weights
from ditbook.data import captions, questions, shapes
from ditbook.data.scene import SIZES, Scene, Thing, shows
from ditbook.training import recipes
from ditbook.training.tasks import clip as clip_task
from ditbook.training.tasks.dalle import WriteImages, draw, says, single_layouts

SEEDS = (0, 1, 2)
BEST_OF = (1, 2, 4, 8, 16, 32)


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@cache
def world() -> tuple[WriteImages, Any, Any]:
    """The task, DALL·E of the shapes, and the reader of scenes."""
    task = recipes.load("dalle-shapes").task
    assert isinstance(task, WriteImages)
    return task, weights.load("dalle-shapes"), weights.load("scene-reader")


def single(pairs: Any, each: int) -> list[Scene]:
    """Scenes of one thing, so many of each pair in both sizes in turn."""
    return [Scene((Thing(SIZES[n % 2], colour, shape),)) for n in range(each) for colour, shape in pairs]


def read_images(scenes: list[Scene], seed: int, temperature: float = 1.0) -> tuple[Tensor, list[Any]]:
    """Images of captions, and what the reader finds in them."""
    task, model, reader = world()
    text = task.text([captions.english(scene) for scene in scenes])
    generator = seeded(seed)
    codes = torch.cat([draw(model, part, generator, temperature=temperature) for part in text.split(500)])
    images = task.dvae.images(codes)
    return images, [row for part in images.split(500) for row in reader.read(part)]


def agreement() -> None:
    """What 1,000 images show of their captions: seen pairs and new ones, at two temperatures."""
    groups: dict[str, list[Scene]] = {
        "seen": single(shapes.SEEN_PAIRS, 18)[:1000],
        "new": single(shapes.NEW_PAIRS, 125),
    }
    for seed in SEEDS:
        for temperature in (1.0, 0.7):
            for name, scenes in groups.items():
                key = {"captions": name, "temperature": temperature, "seed": seed}
                if not stored("agreement", key):
                    _, found = read_images(scenes, seed, temperature)
                    store("agreement", key | fractions(scenes, found) | machine())
    real_scenes()


def fractions(scenes: list[Scene], found: list[Any]) -> dict[str, Any]:
    """Fractions of images with one thing, with its color, its shape, both, and with all its words."""
    counted = {"one": 0, "colour": 0, "shape": 0, "both": 0, "all": 0}
    for scene, seen in zip(scenes, found, strict=True):
        if len(seen) != 1:
            continue
        thing, wanted = seen[0][0], scene.things[0]
        colour, shape = thing.colour == wanted.colour, thing.shape == wanted.shape
        counted["one"] += 1
        counted["colour"] += colour
        counted["shape"] += shape
        counted["both"] += colour and shape
        counted["all"] += thing == wanted
    return {"n": len(scenes)} | {name: round(count / len(scenes), 4) for name, count in counted.items()}


def real_scenes() -> None:
    """To compare with: true images, encoded as tokens and decoded, read in the same way."""
    if stored("agreement", {"captions": "decoded drawings"}):
        return
    task, _, reader = world()
    layouts = shapes.sample(1000, seeded(5), things=1, pairs=shapes.SEEN_PAIRS)
    new = shapes.sample(1000, seeded(6), things=1, pairs=shapes.NEW_PAIRS)
    for name, some in (("decoded drawings", layouts), ("decoded drawings, new", new)):
        found = reader.read(task.dvae.images(task.dvae.tokens(shapes.tensors(some))))
        row = fractions([layout.scene for layout in some], found)
        store("agreement", {"captions": name} | row | machine())


def reranking() -> None:
    """Agreement of the best of n images by CLIP, and by the model's own likelihood of the caption."""
    if stored("reranking", {"by": "clip", "n": BEST_OF[-1]}):
        return
    task, model, reader = world()
    clip = weights.load("clip-shapes")
    scenes = single(shapes.SEEN_PAIRS, 4)[:200]
    said = [captions.english(scene) for scene in scenes]
    text = task.text(said)
    vectors = clip.encode_text(*clip_task.prompts(said))
    right, by_clip, by_words = [], [], []
    for seed in range(BEST_OF[-1]):
        codes = draw(model, text, seeded(100 + seed))
        images = task.dvae.images(codes)
        right.append([shows(seen, scene) for seen, scene in zip(reader.read(images), scenes, strict=True)])
        by_clip.append((clip.encode_image(images) * vectors).sum(dim=1))
        by_words.append(log_likelihood(model, text, codes))
    shown = torch.tensor(right)  # (32, 200)
    for name, scores in (("clip", torch.stack(by_clip)), ("words", torch.stack(by_words))):
        for n in BEST_OF:
            groups = scores.unflatten(0, (-1, n)), shown.unflatten(0, (-1, n))
            best = groups[1].gather(1, groups[0].argmax(dim=1, keepdim=True))[:, 0]
            row = {"by": name, "n": n, "agreement": round(best.double().mean().item(), 4)}
            oracle = round(groups[1].any(dim=1).double().mean().item(), 4)
            store("reranking", row | {"oracle": oracle, "captions": len(scenes)} | machine())


@torch.no_grad()
def log_likelihood(model: Any, text: Tensor, codes: Tensor) -> Tensor:
    """ln p(caption | image), (N,)."""
    tokens = model.sequence(text, codes, image_first=True)
    log_p = model(tokens[:, :-1]).log_softmax(dim=-1).gather(-1, tokens[:, 1:, None])[..., 0]
    return log_p.masked_fill(~model.parts(tokens[:, 1:])[0], 0).sum(dim=1)


def words() -> None:
    """Captions and answers about 1,000 held-out scenes, and of new pairs; and captions found by Bayes' rule."""
    task, model, _ = world()
    held = [layout for layout in single_layouts(15_000, seed=7) if shapes.held_out(layout)]
    groups = {
        "seen pairs": held[:1000],
        "new pairs": shapes.sample(1000, seeded(8), things=1, pairs=shapes.NEW_PAIRS),
    }
    for name, layouts in groups.items():
        if not stored("words", {"images": name, "what": "caption"}):
            codes = task.dvae.tokens(shapes.tensors(layouts))
            said = task.captions(model, codes)
            right = [says(text, layout) for text, layout in zip(said, layouts, strict=True)]
            store("words", {"images": name, "what": "caption", "n": len(right), "right": sum(right) / len(right)})
            answers(name, layouts, codes)


def reading() -> None:
    """The pair of color and shape whose caption makes the tokens of an image most probable: Bayes' rule, all alike."""
    task, model, _ = world()
    for name, pairs in (("seen pairs", shapes.SEEN_PAIRS), ("new pairs", shapes.NEW_PAIRS)):
        if stored("words", {"images": name, "what": "most probable caption"}):
            continue
        layouts = shapes.sample(100, seeded(10), things=1, pairs=pairs)
        codes, right = task.dvae.tokens(shapes.tensors(layouts)), 0
        for layout, row in zip(layouts, codes, strict=True):
            thing = layout.scene.things[0]
            said = task.text([f"a {thing.size} {colour} {shape}" for colour, shape in shapes.PAIRS])
            best = int(image_likelihood(model, said, row.expand(64, -1)).argmax())
            right += shapes.PAIRS[best] == (thing.colour, thing.shape)
        row = {"images": name, "what": "most probable caption", "n": len(layouts), "right": right / len(layouts)}
        store("words", row | machine())


@torch.no_grad()
def image_likelihood(model: Any, text: Tensor, codes: Tensor) -> Tensor:
    """ln p(image | caption), (N,)."""
    tokens = model.sequence(text, codes)
    log_p = model(tokens[:, :-1]).log_softmax(dim=-1).gather(-1, tokens[:, 1:, None])[..., 0]
    return log_p.masked_fill(~model.parts(tokens[:, 1:])[1], 0).sum(dim=1)


def answers(name: str, layouts: list[Any], codes: Tensor) -> None:
    """One row for each kind of question."""
    task, model, _ = world()
    pairs = questions.choose((questions.of_scene(layout.scene) for layout in layouts), seeded(9))
    kinds = [kind_of(question) for question, _ in pairs]
    right = task.right(model, codes, pairs)
    for kind in dict.fromkeys(kinds):
        of_kind = [good for good, its in zip(right, kinds, strict=True) if its == kind]
        fraction = round(sum(of_kind) / len(of_kind), 4)
        store("words", {"images": name, "what": kind, "n": len(of_kind), "right": fraction} | machine())


def kind_of(question: str) -> str:
    """What a question asks for."""
    return question.split()[1]


def both_ways() -> None:
    """Captions, answers, and captions by Bayes' rule."""
    words()
    reading()


EXPERIMENTS = {
    "agreement": agreement,
    "reranking": reranking,
    "words": both_ways,
}

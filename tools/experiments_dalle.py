"""The experiments of chapter 9, run by experiments.py: collapse of a codebook, agreement, reranking, words."""

import time
from functools import cache
from typing import Any

import torch
from experiments import machine, store, stored
from torch import Tensor

from ditbook import data, weights
from ditbook.data import captions, emoji, questions, shapes
from ditbook.data.scene import SIZES, Scene, Thing, shows
from ditbook.layers import quantize
from ditbook.models.dvae import DVAE, DVAEConfig
from ditbook.objectives.discrete import cosine_anneal, quantized_loss, relaxed_loss
from ditbook.training import recipes
from ditbook.training.tasks import clip as clip_task
from ditbook.training.tasks.dalle import WriteImages, draw, say, says
from ditbook.training.tasks.dvae import Tokenize, sample_layouts

SEEDS = (0, 1, 2)
SMALL: dict[str, Any] = {"vocabulary": 256, "width": 16, "start": 32, "groups": 3, "blocks": 1}
STEPS, BATCH, EVERY = 300, 32, 25  # of training; after so many steps unused codes start again
COLDEST = 1 / 16
CODEBOOKS: dict[str, dict[str, Any]] = {
    "vectors, random start": {"code_width": 16},
    "vectors, start from data": {"code_width": 16, "from_data": True},
    "vectors, start from data, restarts": {"code_width": 16, "from_data": True, "restarts": True},
    "Gumbel, annealed": {"warmest": 1.0},
    "Gumbel, cold from the start": {"warmest": COLDEST},
}
BEST_OF = (1, 2, 4, 8, 16, 32)


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@cache
def collapse_images() -> tuple[Tensor, Tensor]:
    """Images to learn from, bytes, and 1,000 scenes and emoji held out."""
    task = recipes.load("dvae").task
    assert isinstance(task, Tokenize)
    held = [layout for layout in sample_layouts(20_000, seed=1) if shapes.held_out(layout)][:500]
    drawings = torch.cat([data.tensors(emoji.load(split))["image"] for split in ("things", "pairs")])[:500]
    return task.data()["image"], torch.cat([shapes.tensors(held), drawings])


def collapse() -> None:
    """How many codes of 256 are used by small autoencoders that differ in the codebook alone."""
    for seed in SEEDS:
        for name, how in CODEBOOKS.items():
            if not stored("codebooks", {"codebook": name, "seed": seed}):
                start = time.process_time()
                for row in train_small(seed, **how):
                    seconds = round(time.process_time() - start, 1)
                    store("codebooks", {"codebook": name, "seed": seed} | row | {"seconds": seconds} | machine())


def train_small(
    seed: int, code_width: int | None = None, from_data: bool = False, restarts: bool = False, warmest: float = 1.0
) -> list[dict[str, Any]]:
    """Train; rows after a third of the steps, two thirds, and all."""
    torch.manual_seed(seed)
    model, generator = DVAE(DVAEConfig(**SMALL, code_width=code_width)), seeded(seed)
    images, held = collapse_images()
    optimizer = torch.optim.AdamW(model.parameters(), lr=2e-3, weight_decay=0.0)
    used, measured = torch.zeros(256, dtype=torch.int64), []
    for step in range(STEPS):
        for group in optimizer.param_groups:
            group["lr"] = 2e-3 * min(1.0, (step + 1) / 50)
        x = data.to_float(images[torch.randint(len(images), (BATCH,), generator=generator)])
        x = x + 0.1 * (torch.rand(x.shape, generator=generator) - 0.5)
        if model.quantizer is not None:
            z = model.vectors(x).detach()
            if from_data and step == 0:
                model.quantizer.replace(torch.ones(256, dtype=torch.bool), z, generator)
            used += quantize.counts(model.quantizer.similarities(z).argmax(dim=1), 256)
            if restarts and step and step % EVERY == 0:
                model.quantizer.replace(used == 0, z, generator)
                used.zero_()
            loss = quantized_loss(model, x, 0.25)
        else:
            temperature = cosine_anneal(step, 2 * STEPS // 3, warmest, COLDEST)
            weight = cosine_anneal(step, 2 * STEPS // 3, 0.0, 1.0)
            loss = relaxed_loss(model, x, temperature, weight, generator)
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        if (step + 1) % (STEPS // 3) == 0:
            measured.append({"step": step + 1} | codebook_of(model, held))
    return measured


def codebook_of(model: DVAE, held: Tensor) -> dict[str, Any]:
    """Codes in use, their perplexity, and the error of images decoded from tokens."""
    tokens = model.tokens(held)
    counts = quantize.counts(tokens, model.config.vocabulary)
    error = (model.images(tokens) - held).abs().mean().item()
    return {
        "codes": int((counts > 0).sum()),
        "perplexity": round(quantize.perplexity(counts).item(), 2),
        "error": round(error, 4),
    }


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
    """What 1,000 images show of their captions: seen pairs and new ones, at several temperatures; and two things."""
    groups: dict[str, list[Scene]] = {
        "seen": single(shapes.SEEN_PAIRS, 18)[:1000],
        "new": single(shapes.NEW_PAIRS, 125),
    }
    for seed in SEEDS:
        for temperature in (1.0, 0.7, 0.5):
            for name, scenes in groups.items():
                key = {"captions": name, "temperature": temperature, "seed": seed}
                if not stored("agreement", key):
                    _, found = read_images(scenes, seed, temperature)
                    store("agreement", key | fractions(scenes, found) | machine())
        key = {"captions": "two things", "temperature": 0.7, "seed": seed}
        if not stored("agreement", key):
            store("agreement", key | of_two(seed) | machine())
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


def of_two(seed: int) -> dict[str, Any]:
    """Two things: both there, and in their relation, of 1,000 captions of held-out scenes."""
    layouts = [layout for layout in sample_layouts(30_000, seed=4) if shapes.held_out(layout)]
    scenes = [layout.scene for layout in layouts if len(layout.places) == 2][:1000]
    _, found = read_images(scenes, seed, 0.7)
    things = [
        sorted(str(thing) for thing, _ in seen) == sorted(map(str, scene.things))
        for seen, scene in zip(found, scenes, strict=True)
    ]
    all_right = [shows(seen, scene) for seen, scene in zip(found, scenes, strict=True)]
    return {
        "n": len(scenes),
        "things": round(sum(things) / len(scenes), 4),
        "all": round(sum(all_right) / len(scenes), 4),
    }


def real_scenes() -> None:
    """The ceiling: true images, encoded as tokens and decoded, read in the same way."""
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
    held = [layout for layout in sample_layouts(30_000, seed=7) if shapes.held_out(layout)]
    groups = {
        "one thing": [layout for layout in held if len(layout.places) == 1][:1000],
        "two things": [layout for layout in held if len(layout.places) == 2][:1000],
        "one thing of a new pair": shapes.sample(1000, seeded(8), things=1, pairs=shapes.NEW_PAIRS),
    }
    for name, layouts in groups.items():
        if not stored("words", {"images": name, "what": "caption"}):
            codes = task.dvae.tokens(shapes.tensors(layouts))
            said = [task.words.decode(row) for row in say(model, codes).tolist()]
            right = [says(text, layout) for text, layout in zip(said, layouts, strict=True)]
            store("words", {"images": name, "what": "caption", "n": len(right), "right": sum(right) / len(right)})
            answers(name, layouts, codes)


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
    """What a question is about: number, colour, size, or the shape that has a colour or stands somewhere."""
    if question.startswith("which shape"):
        return "shape by place" if " the " in question else "shape by colour"
    return "number" if question.startswith("how many") else question.split()[1]


EXPERIMENTS = {"codebooks": collapse, "agreement": agreement, "reranking": reranking, "words": words}

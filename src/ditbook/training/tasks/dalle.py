"""DALL·E: captions and tokens of images in both orders, for the shapes world or for emoji.

Letters: `B` batch, `P` places of a text, `G` tokens along a side of an image, `N` rows of the data.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
import torch.nn.functional as F
from torch import Tensor

from ditbook import data, generation, rng, weights
from ditbook.data import captions, emoji, questions, shapes, tokenizer
from ditbook.data.drawing import render
from ditbook.data.scene import Layout, shows
from ditbook.data.tokenizer import WordTokenizer
from ditbook.judges.scene_reader import SceneReader
from ditbook.layers.checks import check_range
from ditbook.models.clip import CLIP
from ditbook.models.dalle import DALLE
from ditbook.models.dvae import DVAE
from ditbook.objectives.tokens import two_part_loss
from ditbook.training.loop import Batch, Context
from ditbook.training.tasks import Task
from ditbook.training.tasks.emoji import embedded, ranks, recalls

PLACES = 12  # P
TEMPERATURE = 0.7  # of emoji that are judged
REPLACED = 0.1  # fraction of the tokens read in training on emoji


@dataclass(frozen=True, kw_only=True)
class WriteImages(Task[DALLE]):
    """Predict each token of a caption and then of its image, or of an image and then of its caption or a question.

    Of shapes, three quarters of a batch begin with the caption; an eighth goes from the image to the caption, an eighth
    from the image to a question and its answer. Of emoji, all predict the image after its caption, and nothing else.
    """

    images: str  # "shapes" or "emoji"
    layouts: int = 0  # of shapes
    groups: tuple[str, ...] = ()  # of emoji
    tokens_of: str = "dvae"  # the weights of the discrete autoencoder

    def __post_init__(self) -> None:
        super().__post_init__()
        object.__setattr__(self, "groups", tuple(self.groups))
        if self.images not in ("shapes", "emoji"):
            raise ValueError(f"images {self.images!r} must be 'shapes' or 'emoji'")
        check_range(self, "layouts", low=int(self.images == "shapes"))

    @cached_property
    def dvae(self) -> DVAE:
        """The discrete autoencoder."""
        return weights.load(self.tokens_of)

    @cached_property
    def words(self) -> WordTokenizer:
        """The tokenizer of captions and questions."""
        return questions.scene_tokenizer() if self.images == "shapes" else emoji.tokenizer()

    def text(self, texts: Sequence[str]) -> Tensor:
        """Texts as the model takes them, with begin, end and padding: (N, P)."""
        return padded(tokenizer.batch([self.words.encode(text) for text in texts], bos=True, eos=True))

    def data(self) -> Batch:
        """Codes (N, G²), captions, and of shapes questions with their answers, (N, P) each."""
        return self._scenes() if self.images == "shapes" else self.emoji("train")

    def _scenes(self) -> Batch:
        layouts = [layout for layout in single_layouts(self.layouts, seed=0) if not shapes.held_out(layout)]
        codes = [self.dvae.tokens(data.to_float(torch.from_numpy(render(part)))) for part in _split(layouts, 1000)]
        pairs = questions.choose((questions.of_scene(layout.scene) for layout in layouts), _seeded(0))
        said = self.text([captions.english(layout.scene) for layout in layouts])
        return {"image": torch.cat(codes), "caption": said, "question": self.text([" ".join(pair) for pair in pairs])}

    def emoji(self, split: str) -> Batch:
        """Codes (N, G²) and captions (N, P) of the emoji of a split."""
        said = [emoji.prompt(*row) for row in questions.emoji_rows(split, self.groups)]
        return {"image": self.dvae.tokens(emoji_images(split, self.groups)), "caption": self.text(said)}

    def loss(self, model: DALLE, batch: Batch, context: Context) -> Tensor:
        """One eighth the loss of the text's tokens, seven eighths that of the image's; of emoji that alone."""
        if self.images == "emoji":
            image = batch["image"]
            return image_loss(model, batch["caption"], image, replaced(image, model.config.codes, context.generator))
        image, rows = batch["image"], len(batch["image"])
        draws, says = 3 * rows // 4, 7 * rows // 8  # where the second and the third kind begin
        first = model.sequence(batch["caption"][:draws], image[:draws])
        text = torch.cat([batch["caption"][draws:says], batch["question"][says:]])
        tokens = torch.cat([first, model.sequence(text, image[draws:], image_first=True)])
        targets = tokens[:, 1:]
        return two_part_loss(model(tokens[:, :-1]), targets, *model.parts(targets))

    def evaluate(self, model: DALLE) -> dict[str, float]:
        """How often images show their captions and captions say what images show, of things not trained on."""
        return self._evaluate_scenes(model) if self.images == "shapes" else self._evaluate_emoji(model)

    def _evaluate_scenes(self, model: DALLE) -> dict[str, float]:
        layouts = [layout for layout in single_layouts(10_000, seed=1) if shapes.held_out(layout)][:500]
        codes = draw(model, self.text([captions.english(layout.scene) for layout in layouts]), _seeded(2))
        reader: SceneReader = weights.load("scene-reader")
        read = reader.read(self.dvae.images(codes))
        agree = sum(shows(things, layout.scene) for things, layout in zip(read, layouts, strict=True))
        real = self.dvae.tokens(shapes.tensors(layouts))
        said = self.captions(model, real)
        true = [says(text, layout) for text, layout in zip(said, layouts, strict=True)]
        pairs = questions.choose((questions.of_scene(layout.scene) for layout in layouts), _seeded(3))
        return {
            "fraction of 500 images that show their caption": agree / len(layouts),
            "fraction of 500 captions that are true": sum(true) / len(layouts),
            "fraction of 500 questions answered": sum(self.right(model, real, pairs)) / len(layouts),
        }

    @torch.no_grad()
    def _evaluate_emoji(self, model: DALLE) -> dict[str, float]:
        batches, metric = {split: self.emoji(split) for split in emoji.SPLITS}, {}
        for split, batch in batches.items():
            nats = image_loss(model, batch["caption"][:500], batch["image"][:500]).item()
            metric[f"bits for each token of an image, {split}"] = round(nats / math.log(2), 4)
        codes = draw(model, batches["pairs"]["caption"], _seeded(2), temperature=TEMPERATURE)
        rank = self.ranks(self.dvae.images(codes))
        return metric | recalls(rank, f"of {len(rank)} held-out pairs")

    def ranks(self, drawn: Tensor) -> Tensor:
        """How many training drawings of its hand are nearer to each image than the held-out pair's own, by CLIP.

        Args:
            drawn: images for the pairs, (N, 3, 32, 32).
        """
        judge: CLIP = weights.load("clip-emoji")
        hands = {split: [hand for _, hand in questions.emoji_rows(split, self.groups)] for split in ("train", "pairs")}
        vectors = {split: embedded(judge, emoji_images(split, self.groups)) for split in hands}
        allowed = torch.tensor([[one == other for other in hands["train"]] for one in hands["pairs"]])
        return ranks(embedded(judge, drawn), vectors["pairs"], vectors["train"], allowed)

    def captions(self, model: DALLE, codes: Tensor) -> list[str]:
        """The most probable captions of images (N, G²); that they begin with "a" tells them from questions."""
        begin = torch.tensor([[tokenizer.BOS, *self.words.encode("a")]], device=codes.device).repeat(len(codes), 1)
        return ["a" + self.words.decode(row) for row in say(model, codes, begin).tolist()]

    def right(self, model: DALLE, codes: Tensor, pairs: Sequence[tuple[str, str]]) -> list[bool]:
        """Whether the model's answers to questions about images (N, G²) are these: N pairs of question and answer."""
        written = self.answers(model, codes, [question for question, _ in pairs])
        return [text == answer for text, (_, answer) in zip(written, pairs, strict=True)]

    def answers(self, model: DALLE, codes: Tensor, asked: Sequence[str]) -> list[str]:
        """The answers to one question for each of N images (N, G²), those of equal length computed at once."""
        rows, written = [[tokenizer.BOS, *self.words.encode(question)] for question in asked], [""] * len(asked)
        for length in sorted({len(row) for row in rows}):
            which = [number for number, row in enumerate(rows) if len(row) == length]
            begin = torch.tensor([rows[number] for number in which], device=codes.device)
            for number, words in zip(which, say(model, codes[which], begin).tolist(), strict=True):
                written[number] = self.words.decode(words).strip()
        return written


def single_layouts(count: int, seed: int) -> list[Layout]:
    """Layouts of one thing of a seen pair."""
    return shapes.sample(count, _seeded(seed), things=1, pairs=shapes.SEEN_PAIRS)


def image_loss(model: DALLE, text: Tensor, image: Tensor, read: Tensor | None = None) -> Tensor:
    """Mean cross-entropy in nats of the tokens of images (B, G²) after their captions (B, P).

    Args:
        read: what the model reads in place of the image, (B, G²).
    """
    config, places = model.config, text.shape[1]
    sequence = model.sequence(text, image if read is None else read)
    features = model.features(sequence[:, :-1])[:, places:]  # (B, G², D)
    codes = model.tokens.weight[config.words : config.words + config.codes]
    return F.cross_entropy((features @ codes.T).flatten(0, 1), image.flatten())


def replaced(image: Tensor, codes: int, generator: torch.Generator) -> Tensor:
    """Tokens of images, a tenth of them replaced by random ones: so that much of an image must come from its caption.

    Args:
        codes: how many there are to replace them.
    """
    chosen = rng.rand(image.shape, generator, image.device) < REPLACED
    return torch.where(chosen, rng.randint(codes, image.shape, generator, image.device), image)


def draw(
    model: DALLE, text: Tensor, generator: torch.Generator, given: Tensor | None = None, temperature: float = 1.0
) -> Tensor:
    """Sample images of texts, or what is missing of them: codes (B, G²).

    Args:
        text: (B, P), with begin, end and padding.
        generator: of the samples.
        given: the first codes of the images, (B, n).
        temperature: of the samples.
    """
    given = text[:, :0] if given is None else given
    prompt = model.sequence(text, given)
    state, missing = model.start(prompt[:, :-1]), model.config.grid**2 - given.shape[1]
    written = generation.sample(
        model.step, state, first=prompt[:, -1], max_length=missing, generator=generator, temperature=temperature
    )
    return torch.cat([given, written - model.config.words], dim=1)


def say(model: DALLE, codes: Tensor, begin: Tensor | None = None) -> Tensor:
    """The most probable words about images: codes (B, G²) → words, (B, T), what they begin with left out.

    Args:
        codes: whole images.
        begin: what the text begins with, (B, n), the begin token first; by default that alone.
    """
    begin = torch.full_like(codes[:, :1], tokenizer.BOS) if begin is None else begin
    prompt, longest = model.sequence(begin, codes, image_first=True), model.config.text - begin.shape[1]
    state = model.start(prompt[:, :-1])
    return generation.greedy(model.step, state, first=prompt[:, -1], max_length=longest, eos=tokenizer.EOS)


def says(text: str, layout: Layout) -> bool:
    """Whether a caption is one of a layout: each thing and the relation, from either end."""
    try:
        scene = captions.parse_english(text)
    except ValueError:
        return False
    return shows(list(zip(layout.scene.things, layout.places, strict=True)), scene)


def emoji_images(split: str, groups: Sequence[str]) -> Tensor:
    """The emoji of a split that belong to these groups, (N, 3, 32, 32), in the order of `questions.emoji_rows`."""
    dataset = emoji.load(split)
    names = dataset.features["group"].names
    rows = [row for row, group in enumerate(dataset["group"]) if names[group] in groups]
    return data.tensors(dataset.select(rows))["image"]


def padded(text: Tensor) -> Tensor:
    """Texts filled up to P places.

    Raises:
        ValueError: a text is longer.
    """
    if text.shape[1] > PLACES:
        raise ValueError(f"a text of {text.shape[1]} tokens, begin and end counted; there are {PLACES} places")
    return F.pad(text, (0, PLACES - text.shape[1]), value=tokenizer.PAD)


def _split(rows: list[Layout], size: int) -> list[list[Layout]]:
    return [rows[at : at + size] for at in range(0, len(rows), size)]


def _seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)

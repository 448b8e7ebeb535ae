"""The tasks of the emoji: what they train on, the loss, and how the trained models are measured."""

import pytest
import torch
from torch import nn

from ditbook import data, pipeline, weights
from ditbook.data import emoji
from ditbook.data.tokenizer import EOS, PAD
from ditbook.diffusion.flow import flow_loss
from ditbook.models.autoencoder import Autoencoder, AutoencoderConfig
from ditbook.models.clip import CLIP, CLIPConfig
from ditbook.models.unclip import UnCLIPDecoder, UnCLIPDecoderConfig
from ditbook.objectives.autoencoding import autoencoder_loss
from ditbook.objectives.contrastive import contrastive_loss
from ditbook.training.loop import Context
from ditbook.training.tasks import emoji as task
from ditbook.training.tasks.emoji import DecodeEmoji, MatchNames, ReconstructEmoji

CODER = AutoencoderConfig(patch=4, latent_channels=3, widths=(8,), blocks=1, groups=4, scale=0.5)
SIZES = {"patch": 16, "width": 16, "depth": 1, "heads": 2, "text_width": 16, "text_depth": 1, "text_heads": 2}
TOWERS = CLIPConfig(size=32, vocabulary=1424, context=12, joint=24, **SIZES)


def context(seed=0):
    return Context(0, torch.Generator().manual_seed(seed))


def randomised(model, std=0.3):
    torch.manual_seed(0)
    for parameter in model.parameters():
        nn.init.normal_(parameter, std=std)
    return model.eval().requires_grad_(False)


@pytest.fixture(autouse=True)
def few(monkeypatch):
    """Some rows of each split in place of all."""
    load = emoji.load
    rows = {"train": range(0, 7792, 60), "things": range(0, 427, 10), "pairs": range(0, 208, 8)}
    monkeypatch.setattr(emoji, "load", lambda split: load(split).select(rows[split]))


@pytest.fixture
def small(monkeypatch):
    """A small autoencoder and a small CLIP in place of trained weights."""
    models = {"autoencoder-emoji": randomised(Autoencoder(CODER)), "clip-emoji": randomised(CLIP(TOWERS))}
    monkeypatch.setattr(weights, "load", models.__getitem__)
    return models


def test_the_autoencoder_is_trained_on_the_drawings_of_the_train_split():
    given, model = ReconstructEmoji(kl_weight=0.5), randomised(Autoencoder(CODER))
    batch = given.data()
    assert torch.equal(batch["image"], data.tensors(emoji.load("train"))["image"])
    wanted = autoencoder_loss(model, batch["image"], context().generator, 0.5)
    torch.testing.assert_close(given.loss(model, batch, context()), wanted)


def test_the_autoencoder_is_measured_on_things_and_scaled_by_the_train_split():
    model = randomised(Autoencoder(CODER))
    found = ReconstructEmoji(kl_weight=0.5).evaluate(model)
    things, train = (data.tensors(emoji.load(split))["image"] for split in ("things", "train"))
    decoded = model.decode(model.encode(things)[0]).clamp(-1, 1)
    error = (decoded - things).abs().mean().item()
    assert found["mean absolute error on held-out things"] == pytest.approx(error, abs=1e-4)
    mse = (((decoded + 1) / 2 - (things + 1) / 2) ** 2).mean()  # of values from 0 to 1
    assert found["PSNR on held-out things"] == pytest.approx((-10 * mse.log10()).item(), abs=0.01)
    mean, std = model.encode(train)
    spread = (mean + std * torch.randn(mean.shape, generator=torch.Generator().manual_seed(0))).std().item()
    assert found["scale"] == pytest.approx(1 / spread, rel=0.05)


def test_prompts_are_names_with_hands_or_without_and_end_where_they_say():
    tokens, end = task.prompts(["red apple", "owl"], ["twemoji", "noto-v1"])
    words = emoji.tokenizer()
    assert [words.decode(row) for row in tokens.tolist()] == [" red apple, twemoji", " owl, noto-v1"]
    assert tokens.shape == (2, 12)
    assert tokens[[0, 1], end].tolist() == [EOS, EOS]
    assert tokens[1, end[1] + 1 :].eq(PAD).all()
    plain, _ = task.prompts(["red apple", "owl"])
    assert [words.decode(row) for row in plain.tolist()] == [" red apple", " owl"]
    every = [name for split in emoji.SPLITS for name in emoji.load(split)["caption"]]
    assert task.prompts(every, ["noto"] * len(every))[0].shape == (len(every), 12)


def test_clip_is_trained_on_both_kinds_of_prompts_and_moved_drawings(monkeypatch):
    given, dataset, seen = MatchNames(), emoji.load("train"), []
    batch, words = given.data(), emoji.tokenizer()
    hands = dataset.features["hand"].names
    for row, (name, hand) in enumerate(zip(dataset["caption"], dataset["hand"], strict=True)):
        plain, named = (words.decode(tokens) for tokens in batch["tokens"][row].tolist())
        assert (plain, named) == (f" {name}", f" {name}, {hands[hand]}")
    model = randomised(CLIP(TOWERS))

    def spy(*given):
        seen.append(given)
        return model(*given)

    loss = given.loss(spy, batch, context())
    ((x, tokens, end),) = seen
    torch.testing.assert_close(loss, contrastive_loss(model(x, tokens, end)))
    assert not torch.equal(x, batch["image"])
    kinds = [(tokens == batch["tokens"][:, kind]).all(dim=1) for kind in (0, 1)]
    assert (kinds[0] ^ kinds[1]).all()
    assert 0.3 < kinds[1].double().mean() < 0.7
    assert (tokens[torch.arange(len(tokens)), end] == EOS).all()


def test_a_moved_drawing_stays_near_and_is_not_flipped():
    x = torch.ones(400, 3, 32, 32)
    x[:, :, 14:18, 22:26] = -1  # a square to the right of the middle
    found = task.moved(x, torch.Generator().manual_seed(0))
    assert found.shape == x.shape
    weight = (1 - found).mean(dim=1)
    place = [
        (weight * torch.arange(32.0).view(shape)).sum(dim=(1, 2)) / weight.sum(dim=(1, 2)) for shape in ((32, 1), (32,))
    ]
    down, across = (axis - wanted for axis, wanted in zip(place, (15.5, 23.5), strict=True))
    assert 1 < down.abs().max() < 5
    assert 2 < across.abs().max() < 5
    assert down.mean().abs() < 0.3
    area = weight.sum(dim=(1, 2)) / weight.sum(dim=(1, 2)).median()
    assert 0.7 < area.min() < 0.85 < 1.2 < area.max() < 1.5


@pytest.mark.equation("19.12", of="ditbook.training.tasks.emoji.ranks", against="counted by hand")
def test_ranks_count_better_candidates_of_those_allowed():
    queries, own = torch.tensor([[1.0, 0.0], [0.0, 1.0]]), torch.tensor([[0.6, 0.8], [0.8, 0.6]])
    candidates = torch.tensor([[1.0, 0.0], [0.6, 0.8], [0.0, 1.0]])
    every = torch.ones(2, 3, dtype=torch.bool)
    assert task.ranks(queries, own, candidates, every).tolist() == [1, 2]
    every[1, 1] = False
    assert task.ranks(queries, own, candidates, every).tolist() == [1, 1]
    assert task.recalls(torch.tensor([0, 1, 4, 5]), "of 4") == {"recall at 1 of 4": 0.25, "recall at 5 of 4": 0.75}


def test_clip_is_measured_among_the_drawings_of_the_hand_on_names_that_training_says(monkeypatch):
    model, every = randomised(CLIP(TOWERS)), {split: emoji.load(split) for split in emoji.SPLITS}
    found = MatchNames().evaluate(model)
    words = emoji.tokenizer()
    known = {word for name in every["train"]["caption"] for word in words.split(f" {name}")}
    x = {split: data.tensors(rows)["image"] for split, rows in every.items()}
    for split in ("pairs", "things"):
        rows, good = [row for row in every[split] if known.issuperset(words.split(f" {row['caption']}"))], {1: 0, 5: 0}
        for row in rows:
            text = model.encode_text(*task.prompts([row["caption"]], [emoji.HANDS[row["hand"]]]))
            places = []
            for name, dataset in every.items():
                for k, other in enumerate(dataset):
                    if other["hand"] == row["hand"]:
                        similarity = (model.encode_image(x[name][k : k + 1]) @ text.T).item()
                        places.append((-similarity, (other["thing"], name) == (row["thing"], split)))
            rank = [own for _, own in sorted(places)].index(True)
            good = {k: count + (rank < k) for k, count in good.items()}
        for k, count in good.items():
            assert found[f"recall at {k} of {len(rows)} held-out {split}"] == pytest.approx(count / len(rows), abs=1e-4)
    assert len(found) == 4


def decoder():
    sizes = {"size": 8, "channels": 3, "joint": 24, "width": 24, "depth": 1, "heads": 2}
    return randomised(UnCLIPDecoder(UnCLIPDecoderConfig(**sizes)), 0.05)


def test_the_decoder_is_trained_on_latents_and_vectors_of_the_same_drawings(small):
    given, model = DecodeEmoji(clip="clip-emoji", latents_of="autoencoder-emoji"), decoder()
    batch, x = given.data(), data.tensors(emoji.load("train"))["image"]
    torch.testing.assert_close(batch["embedding"], small["clip-emoji"].encode_image(x))
    torch.testing.assert_close(batch["mean"], small["autoencoder-emoji"].encode(x)[0])
    generator = torch.Generator().manual_seed(0)
    latents = small["autoencoder-emoji"].scaled_latents(batch["mean"], batch["std"], generator)
    process = pipeline.process(model, None, "straight")
    wanted = flow_loss(model, process, latents, generator, dropout=0.1, embedding=batch["embedding"])
    torch.testing.assert_close(given.loss(model, batch, context()), wanted)


def test_a_decoder_is_measured_by_the_rank_of_the_drawing_that_was_held_out(small, monkeypatch):
    given, pairs = DecodeEmoji(clip="clip-emoji", latents_of="autoencoder-emoji"), emoji.load("pairs")
    x = data.tensors(pairs)["image"]
    monkeypatch.setattr(task, "decode", lambda *_: x)  # a perfect decoder
    count = len(pairs)
    perfect = {f"recall at {k} of {count} held-out pairs": 1.0 for k in (1, 5)}
    assert given.evaluate(decoder()) == {"similarity to held-out pairs": 1.0} | perfect
    monkeypatch.setattr(task, "decode", lambda *_: x.roll(1, 0))
    other = given.evaluate(decoder())
    assert other["similarity to held-out pairs"] < 1
    assert other[f"recall at 1 of {count} held-out pairs"] < 0.5

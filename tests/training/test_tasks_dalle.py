"""The tasks of chapter 9: tokens of images, and captions, images and questions in one sequence."""

import dataclasses

import pytest
import torch

from ditbook import generation, weights
from ditbook.data import captions, emoji, questions, shapes, tokenizer
from ditbook.data.scene import Layout
from ditbook.models.dalle import DALLE, DALLEConfig
from ditbook.models.dvae import DVAE, DVAEConfig
from ditbook.objectives.discrete import quantized_loss
from ditbook.objectives.tokens import two_part_loss
from ditbook.training import recipes
from ditbook.training.loop import Context
from ditbook.training.tasks import dalle as tasks
from ditbook.training.tasks.dalle import WriteImages
from ditbook.training.tasks.dvae import Tokenize, sample_layouts

SMALL = DVAEConfig(vocabulary=16, width=8, start=8, groups=3, blocks=1, gain=1.0, code_width=4)


def context(step, seed=0):
    return Context(step, torch.Generator().manual_seed(seed))


@pytest.fixture(scope="module")
def task():
    return dataclasses.replace(recipes.load("dalle-shapes").task, layouts=40)


def test_layouts_of_one_and_of_two_things_take_turns():
    layouts = sample_layouts(200, seed=0)
    assert [len(layout.places) for layout in layouts] == [1, 2] * 100
    pairs = {(thing.colour, thing.shape) for layout in layouts for thing in layout.scene.things}
    assert not pairs & set(shapes.NEW_PAIRS)


def test_images_are_tokenized_continuously_at_first_and_then_by_codes():
    tokenize = Tokenize(layouts=6, commitment=0.25, continuous_steps=10, restart_every=5, restart_steps=20, noise=0.0)
    batch = tokenize.data()
    assert batch["image"].shape == (6 + len(emoji.load("train")), 32, 32, 3)
    x = batch["image"][:4].permute(0, 3, 1, 2) / 127.5 - 1
    torch.manual_seed(0)
    model = DVAE(SMALL)
    small = {"image": batch["image"][:4]}
    before = model.quantizer.codebook.weight.clone()
    continuous = tokenize.loss(model, small, context(9))
    torch.testing.assert_close(continuous, model.nats(x, model.vectors(x)).mean())
    assert torch.equal(model.quantizer.codebook.weight, before)
    loss = tokenize.loss(model, small, context(10))  # all codes start from the batch
    vectors = model.vectors(x).movedim(1, -1).flatten(0, 2)
    after = model.quantizer.codebook.weight.clone()
    assert torch.cdist(after, vectors, compute_mode="donot_use_mm_for_euclid_dist").amin(dim=1).max() < 1e-5
    torch.testing.assert_close(loss, quantized_loss(model, x, 0.25))
    with torch.no_grad():
        model.quantizer.codebook.weight[3] = 1e3  # nothing is near
    tokenize.loss(model, small, context(11))
    assert model.quantizer.codebook.weight[3, 0] == 1e3
    tokenize.loss(model, small, context(15))
    assert model.quantizer.codebook.weight[3, 0] != 1e3
    with torch.no_grad():
        model.quantizer.codebook.weight[3] = 1e3
    tokenize.loss(model, small, context(20))  # no restarts any more
    assert model.quantizer.codebook.weight[3, 0] == 1e3


def test_rows_hold_the_caption_and_a_question_of_their_image(task):
    batch = task.data()
    layouts = [layout for layout in tasks.single_layouts(40, seed=0) if not shapes.held_out(layout)]
    assert batch["image"].shape == (len(layouts), 64)
    assert torch.equal(batch["image"], task.dvae.tokens(shapes.tensors(layouts)))
    for layout, caption, question in zip(layouts, batch["caption"], batch["question"], strict=True):
        assert task.words.decode(caption.tolist()) == captions.english(layout.scene)
        pairs = [" ".join(pair) for pair in questions.of_scene(layout.scene)]
        assert task.words.decode(question.tolist()) in pairs


def test_three_quarters_of_a_batch_begin_with_the_caption(task):
    batch = {name: rows[:8] for name, rows in task.data().items()}
    model = weights.load("dalle-shapes")
    orders = []
    for text, image, image_first in (
        (batch["caption"][:6], batch["image"][:6], False),
        (batch["caption"][6:7], batch["image"][6:7], True),
        (batch["question"][7:], batch["image"][7:], True),
    ):
        orders.append(model.sequence(text, image, image_first=image_first))
    tokens = torch.cat(orders)
    wanted = two_part_loss(model(tokens[:, :-1]), tokens[:, 1:], *model.parts(tokens[:, 1:]))
    torch.testing.assert_close(task.loss(model, batch, context(0)), wanted)


def test_drawing_keeps_what_is_given_and_saying_stops_at_the_end(task):
    model, text = weights.load("dalle-shapes"), task.text(["a large red circle"] * 3)
    given = torch.zeros(3, 20, dtype=torch.long)
    codes = tasks.draw(model, text, torch.Generator().manual_seed(0), given=given)
    assert codes.shape == (3, 64)
    assert torch.equal(codes[:, :20], given)
    assert 0 <= codes.min() <= codes.max() < 512
    said = tasks.say(model, codes)
    prompt = model.sequence(torch.full((3, 1), tokenizer.BOS), codes, image_first=True)
    state = model.start(prompt[:, :-1])
    wanted = generation.greedy(model.step, state, first=prompt[:, -1], max_length=11, eos=tokenizer.EOS)
    assert torch.equal(said, wanted)


def test_captions_begin_with_an_article(task):
    model = weights.load("dalle-shapes")
    layouts = tasks.single_layouts(20, seed=5)
    codes = task.dvae.tokens(shapes.tensors(layouts))
    said = task.captions(model, codes)
    assert all(text.startswith("a ") for text in said)
    assert sum(tasks.says(text, layout) for text, layout in zip(said, layouts, strict=True)) > 10


def test_answers_of_questions_of_all_lengths_come_in_their_order(task):
    model = weights.load("dalle-shapes")
    layouts = sample_layouts(6, seed=5)
    codes = task.dvae.tokens(shapes.tensors(layouts))
    asked = ["which shape is red ?", "which colour is the star ?"] * 3
    together = task.answers(model, codes, asked)
    alone = [task.answers(model, codes[n : n + 1], asked[n : n + 1])[0] for n in range(6)]
    assert together == alone
    pairs = [
        (question, answer if n else "nothing") for n, (question, answer) in enumerate(zip(asked, alone, strict=True))
    ]
    assert task.right(model, codes, pairs) == [False, *[True] * 5]


def test_a_caption_is_true_from_either_end():
    layout = Layout(captions.parse_english("a small red star above a large blue moon"), ((16, 6), (16, 22)))
    assert tasks.says("a small red star above a large blue moon", layout)
    assert tasks.says("a large blue moon below a small red star", layout)
    assert not tasks.says("a large blue moon above a small red star", layout)
    assert not tasks.says("a small red star", layout)
    assert not tasks.says("a small red", layout)


@pytest.fixture
def few(monkeypatch):
    """The task of food and drink, with some rows of each split in place of all."""
    load = emoji.load
    rows = {"train": range(0, 7792, 40), "things": range(0, 427, 10), "pairs": range(0, 208, 4)}
    monkeypatch.setattr(emoji, "load", lambda split: load(split).select(rows[split]))
    return WriteImages(images="emoji", groups=("Food & Drink",))


def test_rows_of_emoji_hold_an_image_and_its_name_and_hand(few):
    for split in emoji.SPLITS:
        rows, batch = questions.emoji_rows(split, few.groups), few.emoji(split)
        assert [few.words.decode(row) for row in batch["caption"].tolist()] == [emoji.prompt(*row) for row in rows]
        assert torch.equal(batch["image"], few.dvae.tokens(tasks.emoji_images(split, few.groups)))
    assert {name: rows.tolist() for name, rows in few.data().items()} == {
        name: rows.tolist() for name, rows in few.emoji("train").items()
    }


def small():
    torch.manual_seed(0)
    return DALLE(DALLEConfig(words=1424, codes=512, text=12, grid=8, width=16, depth=1, heads=2, std=0.5)).eval()


def test_the_loss_of_an_image_is_that_of_its_part_of_the_sequence(few):
    model, batch = small(), few.data()
    text, image = batch["caption"], batch["image"]
    tokens = model.sequence(text, image)
    wanted = two_part_loss(model(tokens[:, :-1]), tokens[:, 1:], *model.parts(tokens[:, 1:]), text_weight=0.0)
    torch.testing.assert_close(tasks.image_loss(model, text, image), wanted)
    read = image.flip(0)
    logits = model(model.sequence(text, read)[:, :-1])[:, 12:, 1424:-1]
    wanted = torch.nn.functional.cross_entropy(logits.flatten(0, 1), image.flatten())
    torch.testing.assert_close(tasks.image_loss(model, text, image, read), wanted)
    read = tasks.replaced(image, 512, context(0).generator)
    torch.testing.assert_close(few.loss(model, batch, context(0)), tasks.image_loss(model, text, image, read))


def test_a_tenth_of_the_tokens_read_are_replaced_by_random_ones():
    image = torch.full((500, 64), 7)
    read = tasks.replaced(image, 10, torch.Generator().manual_seed(0))
    assert 0.085 < (read != 7).double().mean() < 0.095  # one of ten is replaced by itself
    assert set(read[read != 7].tolist()) == {*range(10)} - {7}


def test_emoji_are_judged_by_the_drawing_that_was_held_out(few, monkeypatch):
    model, real, asked = small(), few.emoji("pairs"), []
    count = len(real["image"])

    def perfect(_, text, __, temperature):
        asked.append((text, temperature))
        return real["image"]

    monkeypatch.setattr(tasks, "draw", perfect)
    monkeypatch.setattr(DVAE, "images", lambda *_: tasks.emoji_images("pairs", few.groups))
    found = few.evaluate(model)
    assert torch.equal(asked[0][0], real["caption"])
    assert asked[0][1] == tasks.TEMPERATURE
    nats = tasks.image_loss(model, real["caption"], real["image"]).item()
    assert found["bits for each token of an image, pairs"] == pytest.approx(nats / 0.693147, abs=1e-3)
    assert found[f"recall at 1 of {count} held-out pairs"] == found[f"recall at 5 of {count} held-out pairs"] == 1
    assert len(found) == 5


def test_only_drawings_of_the_hand_are_rivals_of_a_pair(few):
    judge, drawn = weights.load("clip-emoji"), tasks.emoji_images("train", few.groups)
    rows = {split: questions.emoji_rows(split, few.groups) for split in ("train", "pairs")}
    vectors = {split: judge.encode_image(tasks.emoji_images(split, few.groups)) for split in rows}
    made = drawn[: len(rows["pairs"])]  # another thing's, so that there are rivals that are nearer
    rank = few.ranks(made).tolist()
    for number, (_, hand) in enumerate(rows["pairs"]):
        near = judge.encode_image(made[number : number + 1])[0]
        own = near @ vectors["pairs"][number]
        nearer = [
            near @ v > own + 1e-6
            for v, (_, other) in zip(vectors["train"], rows["train"], strict=True)
            if other == hand
        ]
        assert rank[number] == sum(map(bool, nearer))
    assert max(rank) > 0


def test_words_are_written_and_images_drawn_on_the_device_of_the_model(task, monkeypatch):
    """On meta, where a tensor from elsewhere raises; only the words that are written get numbers to be read by."""
    sizes = {"words": 200, "codes": 512, "text": 12, "grid": 2}
    model, say = DALLE(DALLEConfig(**sizes, width=16, depth=1, heads=2)).to("meta"), tasks.say
    codes = torch.zeros(4, 4, dtype=torch.int64, device="meta")

    def numbered(*inputs):
        return torch.full_like(say(*inputs), tokenizer.EOS, device="cpu")

    monkeypatch.setattr(tasks, "say", numbered)
    assert task.captions(model, codes) == ["a"] * 4
    asked = ["which shape is red ?", "which colour is the star ?"] * 2
    assert task.answers(model, codes, asked) == [""] * 4
    assert say(model, codes).is_meta
    text = task.text(asked).to("meta")
    for given in (None, codes[:, :1]):
        drawn = tasks.draw(model, text, torch.Generator().manual_seed(0), given)
        assert (drawn.shape, drawn.device.type) == ((4, 4), "meta")
    assert tasks.replaced(codes, 512, torch.Generator().manual_seed(0)).is_meta


def test_wrong_data_and_long_texts_are_refused(task):
    with pytest.raises(ValueError, match="images 'cats' must be 'shapes' or 'emoji'"):
        WriteImages(images="cats")
    with pytest.raises(ValueError, match="a text of 16 tokens, begin and end counted; there are 12 places"):
        task.text(["a small red star " * 3 + "a star"])

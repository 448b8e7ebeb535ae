import pytest
import torch

from ditbook import weights
from ditbook.data import shapes
from ditbook.data.captions import parse_english
from ditbook.data.scene import Thing
from ditbook.judges import composition
from ditbook.judges.composition import TASKS, passed


def seen(*things):
    """Readings as text: ("small red star", (8, 8)) → a thing at its place."""
    return [(Thing(*words.split()), place) for words, place in things]


STAR, MOON = ("small red star", (8, 8)), ("large blue moon", (8, 24))
ONE = parse_english("a small red star")
TWO = parse_english("a small red star above a large blue moon")
STARS = parse_english("a small red star above a large blue star")


@pytest.mark.parametrize(
    ("task", "scene", "right", "wrong"),
    [
        (
            "single thing",
            ONE,
            [[STAR], [("large blue star", (8, 8))], [STAR, MOON]],
            [[], [("small red moon", (8, 8))]],
        ),
        (
            "two things",
            TWO,
            [[STAR, MOON], [("large blue star", (24, 8)), ("small red moon", (8, 8)), STAR]],
            [[STAR], [MOON], [STAR, STAR]],
        ),
        (
            "counting",
            STARS,
            [[STAR, STAR], [STAR, ("large grey star", (8, 8)), MOON]],
            [[STAR], [STAR, STAR, STAR], [STAR, MOON]],
        ),
        ("color", ONE, [[STAR], [("large red star", (8, 8)), MOON]], [[("small blue star", (8, 8))], []]),
        (
            "color",
            ONE,
            [[STAR]],
            [[("small red moon", (8, 8)), ("small blue star", (8, 24))]],
        ),
        (
            "position",
            TWO,
            [[STAR, MOON], [("large grey star", (8, 8)), ("small red moon", (10, 20))]],
            [
                [("small red star", (8, 24)), ("large blue moon", (8, 8))],
                [STAR],
                [("small red star", (8, 8)), ("large blue moon", (24, 8))],
            ],
        ),
        ("position", TWO, [[("small red star", (8, 28)), STAR, MOON]], [[]]),
        (
            "color binding",
            TWO,
            [[STAR, MOON], [("large red star", (8, 24)), ("small blue moon", (8, 8))]],
            [[STAR], [("small blue star", (8, 8)), ("large red moon", (8, 24))], [STAR, ("large red moon", (8, 24))]],
        ),
    ],
)
def test_what_passes_a_task(task, scene, right, wrong):
    assert [passed(task, seen(*things), scene) for things in right] == [True] * len(right)
    assert [passed(task, seen(*things), scene) for things in wrong] == [False] * len(wrong)


@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize("pairs", [shapes.SEEN_PAIRS, shapes.NEW_PAIRS], ids=["seen", "new"])
def test_scenes_of_a_task_ask_what_it_says(task, pairs):
    found = composition.scenes(task, 31, torch.Generator().manual_seed(0), pairs=pairs)
    assert len(found) == 31
    things = [thing for scene in found for thing in scene.things]
    assert {(thing.colour, thing.shape) for thing in things} <= set(pairs)
    counts = {n: sum(len(scene.things) == n for scene in found) for n in (1, 2, 3)}
    wanted = {"single thing": (31, 0, 0), "color": (31, 0, 0), "counting": (0, 16, 15)}.get(task, (0, 31, 0))
    assert tuple(counts.values()) == wanted
    kinds = {"color": {len({thing.colour for thing in scene.things}) for scene in found}}
    kinds["shape"] = {len({thing.shape for thing in scene.things}) for scene in found}
    if task == "counting":
        assert kinds["shape"] == {1}
    elif task in ("two things", "position", "color binding"):
        assert kinds["shape"] == {2}
        assert kinds["color"] == ({2} if task == "color binding" or pairs == shapes.NEW_PAIRS else {1, 2})


def test_the_generator_decides():
    one, same, other = (composition.scenes("position", 9, torch.Generator().manual_seed(seed)) for seed in (0, 0, 1))
    assert one == same != other


def test_true_images_pass():
    """A judge that fails what is right would blame the model: real images first."""
    layouts, reader = shapes.sample(400, torch.Generator().manual_seed(3)), weights.load("scene-reader")
    for task, asked in TASKS.items():
        fitting = [it for it in layouts if len(it.places) in asked.things and asked.suits(it.scene)]
        read = reader.read(shapes.tensors(fitting))
        right = [passed(task, *both) for both in zip(read, [it.scene for it in fitting], strict=True)]
        assert len(right) > 5
        assert all(right)


def test_an_unknown_task():
    with pytest.raises(ValueError, match="no task 'size'; there are single thing, two things, counting, color"):
        passed("size", [], ONE)
    with pytest.raises(ValueError, match="no task 'size'"):
        composition.scenes("size", 3, torch.Generator())

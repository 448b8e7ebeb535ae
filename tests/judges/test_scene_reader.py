import math

import pytest
import torch
import torch.nn.functional as F

from ditbook import weights
from ditbook.data import captions, shapes, tensors
from ditbook.data.scene import COLOURS, SHAPES, Layout, Scene, Thing, shows
from ditbook.data.shapes import PAIRS
from ditbook.judges import scene_reader
from ditbook.judges.scene_reader import SceneReader, SceneReaderConfig

STAR, SQUARE = Thing("small", "red", "star"), Thing("large", "blue", "square")
TWO = Layout(Scene((STAR, SQUARE), ("above",)), ((12, 6), (15, 21)))
ROUND = 50.0  # a logit that leaves no doubt


def certain(targets):
    """The logits of a network that knows the right answers."""
    there = targets[:, :1] != scene_reader.NOTHING
    parts = [torch.where(there, ROUND, -ROUND)]
    for choices, answers in zip(scene_reader.ATTRIBUTES, targets.long().unbind(dim=1), strict=True):
        parts.append(ROUND * F.one_hot(answers.clamp(min=0), choices).permute(0, 3, 1, 2))
    return torch.cat(parts, dim=1)


def fixed(monkeypatch, logits):
    """A reader that gives these logits, whatever the image."""
    model = SceneReader(SceneReaderConfig(width=16, blocks=1))
    monkeypatch.setattr(model, "forward", lambda images: logits)
    return model


def pixels(layouts):
    return torch.from_numpy(shapes.render(layouts)).permute(0, 3, 1, 2).float() / 127.5 - 1


def test_targets_by_hand():
    result = scene_reader.targets([TWO])
    assert result.shape == (1, 4, 16, 16)
    assert result[0, :, 3, 6].tolist() == [0, 0, 4, 0]  # small, red, star, on the corner of cell (6, 3)
    assert result[0, :, 10, 7].tolist() == [1, 2, 1, 3]  # one pixel right and below
    assert (result != scene_reader.NOTHING).sum() == 8


def test_right_answers_are_read_as_the_layout(monkeypatch):
    layouts = shapes.sample(300, torch.Generator().manual_seed(0))
    model = fixed(monkeypatch, certain(scene_reader.targets(layouts)))
    for layout, seen in zip(layouts, model.read(torch.zeros(300, 3, 32, 32)), strict=True):
        assert set(seen) == set(zip(layout.scene.things, layout.places, strict=True))
        assert len(seen) == len(layout.places)
        assert shows(seen, layout.scene)
        assert seen == sorted(seen, key=lambda row: (row[1][1] // 2, row[1][0] // 2))


def test_of_neighbouring_cells_the_surer_one_counts(monkeypatch):
    logits = certain(scene_reader.targets([TWO]))
    logits[0, :, 3, 7] = logits[0, :, 3, 6]
    logits[0, 0, 3, 7] = ROUND + 1
    logits[0, 0, 11, 8] = ROUND - 1
    seen = fixed(monkeypatch, logits).read(torch.zeros(1, 3, 32, 32))
    assert seen == [[(STAR, (14, 6)), (SQUARE, (15, 21))]]


def test_probabilities_are_those_of_the_surest_cell(monkeypatch):
    logits = torch.randn(5, 23, 16, 16, generator=torch.Generator().manual_seed(0))
    logits[:, 0, 4, 9] = 10
    found = fixed(monkeypatch, logits).probabilities(torch.zeros(5, 3, 32, 32))
    assert found.shape == (5, 64)
    torch.testing.assert_close(found.sum(dim=1), torch.ones(5))
    colour, shape = logits[2, 3:11, 4, 9].softmax(0), logits[2, 11:19, 4, 9].softmax(0)
    for number, (name, kind) in enumerate(PAIRS):
        assert found[2, number].item() == pytest.approx(
            (colour[COLOURS.index(name)] * shape[SHAPES.index(kind)]).item()
        )


def test_loss_of_the_ignorant_and_of_the_certain():
    targets = scene_reader.targets([TWO, Layout(Scene((STAR,)), ((9, 9),))])
    per_thing = math.log(2) + 2 * math.log(8) + math.log(4)
    ignorant = scene_reader.loss(torch.zeros(2, 23, 16, 16), targets).item()
    assert ignorant == pytest.approx(256 * math.log(2) + 1.5 * per_thing, rel=1e-5)  # three things in two pictures
    assert scene_reader.loss(certain(targets), targets).item() == pytest.approx(0, abs=1e-6)
    assert scene_reader.loss(certain(targets), targets.roll(1, dims=3)).item() > ROUND


def test_shapes_and_gradients():
    torch.manual_seed(0)
    model = SceneReader(SceneReaderConfig(width=16, blocks=2))
    images = pixels([TWO] * 3)
    logits = model(images)
    assert logits.shape == (3, 23, 16, 16)
    assert model.features(images).shape == (3, 16)
    scene_reader.loss(logits, scene_reader.targets([TWO] * 3)).backward()
    assert all(parameter.grad.abs().sum() > 0 for parameter in model.parameters())
    with pytest.raises(ValueError, match=r"\(2, 3, 64, 64\); this model takes \(batch, 3, 32, 32\)"):
        model(torch.zeros(2, 3, 64, 64))


def test_configs_that_do_not_fit():
    with pytest.raises(ValueError, match="width 20 is not divisible by the groups of GroupNorm: 8"):
        SceneReaderConfig(width=20)
    with pytest.raises(ValueError, match="blocks 0 must be at least 1"):
        SceneReaderConfig(blocks=0)


def test_bytes_are_refused():
    with pytest.raises(ValueError, match=r"images of type torch.uint8; .* floating-point numbers in \[-1, 1\]"):
        SceneReader(SceneReaderConfig(width=16)).read(torch.zeros(1, 3, 32, 32, dtype=torch.uint8))


@pytest.mark.parametrize("split", ["validation", "compositional"])
def test_the_trained_one_reads_what_it_never_saw(split):
    """Every thing and every place of a picture; the recipe says what was measured on many more."""
    rows = shapes.load(split, 400, seed=7)
    seen = weights.load("scene-reader").read(tensors(rows)["image"])
    layouts = [Layout.from_json(text) for text in rows["scene"]]
    right = [
        set(row) == set(zip(layout.scene.things, layout.places, strict=True)) and len(row) == len(layout.places)
        for row, layout in zip(seen, layouts, strict=True)
    ]
    assert sum(right) / len(right) > 0.99
    agree = [shows(row, captions.parse_english(caption)) for row, caption in zip(seen, rows["caption"], strict=True)]
    assert sum(agree) / len(agree) > 0.99


def test_the_trained_one_names_the_class():
    rows = tensors(shapes.load("validation", 300, things=1))
    found = weights.load("scene-reader").probabilities(rows["image"])
    assert (found.argmax(dim=1) == rows["label"]).float().mean() > 0.99


def test_the_trained_one_bears_noise():
    layouts = shapes.sample(300, torch.Generator().manual_seed(8))
    images = pixels(layouts)
    images = images + 0.15 * torch.randn(images.shape, generator=torch.Generator().manual_seed(9))
    seen = weights.load("scene-reader").read(images)
    assert sum(shows(row, layout.scene) for row, layout in zip(seen, layouts, strict=True)) > 290


def test_its_features_tell_sets_of_pictures_apart():
    """Means of two draws of one kind lie close; those of blurred, mirrored or single things lie farther away."""
    model, generator = weights.load("scene-reader"), torch.Generator().manual_seed(0)
    one, two = (pixels(shapes.sample(1000, generator)) for _ in range(2))
    others = {
        "blurred": torch.lerp(two, F.avg_pool2d(two, 3, stride=1, padding=1, count_include_pad=False), 0.5),
        "mirrored": two.flip(3),
        "single things": pixels(shapes.sample(1000, generator, things=1)),
    }
    means = {name: model.features(images).mean(dim=0) for name, images in {"": one, "same": two, **others}.items()}
    apart = {name: (mean - means[""]).norm().item() for name, mean in means.items()}
    assert all(apart[name] > 3 * apart["same"] for name in others), apart

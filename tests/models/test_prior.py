import pytest
import torch
import torch.nn.functional as F
from torch import nn

from ditbook import generation
from ditbook.models.prior import (
    PAD,
    AutoregressivePrior,
    AutoregressivePriorConfig,
    DiffusionPrior,
    DiffusionPriorConfig,
    padded,
)

SIZES = {"joint": 12, "vocabulary": 19, "context": 7, "width": 24, "depth": 2, "heads": 4}
CONFIG = DiffusionPriorConfig(**SIZES)
AR = AutoregressivePriorConfig(**SIZES, components=5, values=9, dots=4)


def randomised(model):
    torch.manual_seed(0)
    for parameter in model.parameters():
        nn.init.normal_(parameter, std=0.3)
    return model.double()


def captions():
    torch.manual_seed(1)
    tokens = torch.randint(1, 19, (3, 7))
    for row, length in enumerate((7, 4, 2)):
        tokens[row, length:] = PAD
    return tokens, F.normalize(torch.randn(3, 12, dtype=torch.float64), dim=1)


def test_the_null_caption_is_its_first_token_and_a_learned_vector():
    model, (tokens, text) = randomised(DiffusionPrior(CONFIG)), captions()
    null = model.null_condition(tokens, text)
    assert null["tokens"].tolist() == [[row[0], *[PAD] * 6] for row in tokens.tolist()]
    assert torch.equal(null["text"], model.null.expand(3, 12))
    x, t = torch.randn(3, 12, dtype=torch.float64), torch.tensor([1, 2, 3])
    model(x, t, **null).square().sum().backward()
    assert model.null.grad.abs().sum() > 0


def test_what_stands_after_a_caption_changes_nothing():
    model, (tokens, text) = randomised(DiffusionPrior(CONFIG)), captions()
    x, t = torch.randn(3, 12, dtype=torch.float64), torch.tensor([1, 2, 3])
    before = model(x, t, tokens, text)
    model.caption.words.weight.data[PAD] += 5
    torch.testing.assert_close(model(x, t, tokens, text), before)


def test_every_part_of_the_input_counts():
    model, (tokens, text) = randomised(DiffusionPrior(CONFIG)), captions()
    x, t = torch.randn(3, 12, dtype=torch.float64), torch.tensor([1, 2, 3])
    before = model(x, t, tokens, text)
    other = torch.where(tokens == PAD, PAD, tokens % 18 + 1)
    for changed in ((x + 1, t, tokens, text), (x, t + 1, tokens, text), (x, t, other, text), (x, t, tokens, -text)):
        assert (model(*changed) - before).abs().amin(dim=1).max() > 1e-4


@pytest.mark.parametrize("length", [1, 3])
def test_steps_with_a_cache_are_the_whole_sequence(length):
    model, (tokens, text) = randomised(AutoregressivePrior(AR)), captions()
    codes = torch.tensor([[9, 1, 2, 3, 4], [12, 8, 7, 6, 5], [10, 0, 0, 0, 0]])
    state, found = model.start(tokens, text), []
    for part in codes.split(length, dim=1):
        logits, state = model.decode(part, state)
        found.append(logits)
    torch.testing.assert_close(torch.cat(found, dim=1), model(tokens, text, codes))


def test_codes_are_generated_one_after_another():
    model, (tokens, text) = randomised(AutoregressivePrior(AR)), captions()
    first = torch.tensor([9, 10, 11])
    codes = generation.greedy(model.step, model.start(tokens, text), first=first, max_length=5)
    assert codes.shape == (3, 5)
    logits = model(tokens, text, torch.cat([first[:, None], codes[:, :-1]], dim=1))
    assert torch.equal(logits.argmax(dim=-1), codes)


def test_similarities_fall_into_equally_frequent_intervals():
    model = AutoregressivePrior(AR)
    generator = torch.Generator().manual_seed(0)
    image, text = (F.normalize(torch.randn(400, 12, generator=generator), dim=1) for _ in range(2))
    model.fit(image, text)
    dots = model.dot_tokens((image * text).sum(dim=1))
    assert dots.bincount().tolist() == [0] * 9 + [100] * 4
    order = (image * text).sum(dim=1).argsort()
    assert dots[order].tolist() == sorted(dots.tolist())


def test_wrong_input_is_refused():
    model, (tokens, text) = randomised(AutoregressivePrior(AR)), captions()
    with pytest.raises(ValueError, match="captions of 8 tokens are longer than the context of 7"):
        padded(F.pad(tokens, (0, 1)), 7)
    with pytest.raises(ValueError, match=r"start\(tokens, text\)"):
        model.start(tokens)
    with pytest.raises(ValueError, match="timesteps of shape"):
        DiffusionPrior(CONFIG)(text.float(), torch.tensor([1]), tokens, text.float())


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"heads": 5}, "width 24 is not divisible by heads 5"),
        ({"context": 0}, "context 0 must be at least 1"),
        ({"dots": 0}, "dots 0 must be at least 1"),
    ],
)
def test_configs_that_do_not_fit(change, message):
    with pytest.raises(ValueError, match=message):
        AutoregressivePriorConfig(**{**vars(AR), **change})


def test_the_paper_s_prior_has_about_a_billion_parameters():
    with torch.device("meta"):
        counts = [
            sum(p.numel() for p in model.parameters())
            for model in (
                DiffusionPrior(DiffusionPriorConfig()),
                AutoregressivePrior(AutoregressivePriorConfig(joint=1024)),
            )
        ]
    assert all(1.0e9 < count < 1.5e9 for count in counts)

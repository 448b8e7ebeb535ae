import pytest
import torch

from ditbook.metrics import complexity
from ditbook.models.gpt import GPT, ActorCritic, GPTConfig, GPTScorer

SMALL = GPTConfig(vocabulary=11, longest=12, width=16, depth=2, heads=4)


def model(config=SMALL, scale=8.0):
    torch.manual_seed(0)
    gpt = GPT(config).double().eval()
    for parameter in gpt.parameters():
        parameter.data *= scale  # so that attention is far from uniform
    return gpt


@pytest.mark.equation(
    "5.6", of="ditbook.models.gpt.GPTConfig.parameters", against="the published models, and our modules counted"
)
@pytest.mark.parametrize(
    ("name", "parameters"),
    [
        ("GPT-1", 116_534_784),
        ("GPT-2", 124_439_808),
        ("GPT-2 medium", 354_823_168),
        ("GPT-2 large", 774_030_080),
        ("GPT-2 XL", 1_557_611_200),
        ("GPT-3", 174_604_259_328),
    ],
)
def test_the_parameters_are_those_of_the_published_models(name, parameters):
    config = GPTConfig.from_name(name)
    assert config.parameters == parameters
    if name != "GPT-3":
        with torch.device("meta"):
            assert sum(p.numel() for p in GPT(config).parameters()) == parameters


def test_a_cached_text_has_the_logits_of_a_whole_one():
    gpt, tokens = model(), torch.randint(11, (3, 10), generator=torch.Generator().manual_seed(1))
    for read in (0, 1, 4):
        state, steps = gpt.start(tokens[:, :read]), []
        for place in range(read, 10):
            logits, state = gpt.step(tokens[:, place], state)
            steps.append(logits)
        torch.testing.assert_close(torch.stack(steps, dim=1), gpt(tokens)[:, read:])


def test_padding_on_the_left_with_a_mask_changes_nothing():
    gpt = model()
    generator = torch.Generator().manual_seed(1)
    texts = [torch.randint(11, (n,), generator=generator) for n in (7, 4, 1)]
    padded = torch.stack([torch.cat([torch.zeros(7 - len(t), dtype=torch.long), t]) for t in texts])
    mask = torch.tensor([[place >= 7 - len(t) for place in range(7)] for t in texts])
    logits = gpt(padded, mask)
    next_logits = gpt.step(torch.tensor([3, 3, 3]), gpt.start(padded, mask))[0]
    for row, text in enumerate(texts):
        torch.testing.assert_close(logits[row, 7 - len(text) :], gpt(text[None])[0])
        torch.testing.assert_close(next_logits[row], gpt(torch.cat([text, torch.tensor([3])])[None])[0, -1])


def test_padding_on_the_right_changes_nothing_before_it():
    gpt, tokens = model(), torch.randint(11, (2, 8), generator=torch.Generator().manual_seed(1))
    torch.testing.assert_close(gpt(torch.cat([tokens, torch.zeros(2, 4, dtype=torch.long)], dim=1))[:, :8], gpt(tokens))


def test_attention_maps_are_causal_and_those_that_the_model_uses():
    gpt, tokens = model(), torch.randint(11, (2, 8), generator=torch.Generator().manual_seed(1))
    maps = gpt.attention_maps(tokens)
    assert maps.shape == (2, 2, 4, 8, 8)
    assert maps.triu(1).eq(0).all()
    torch.testing.assert_close(maps.sum(-1), torch.ones(2, 2, 4, 8, dtype=torch.float64))


@pytest.mark.equation("5.5", of="ditbook.models.gpt.GPT.initialize", against="standard deviations of all weights")
def test_the_start_is_that_of_gpt2():
    torch.manual_seed(0)
    gpt = GPT(GPTConfig(vocabulary=1000, longest=64, width=128, depth=8, heads=4))
    for name, parameter in gpt.named_parameters():
        std = parameter.std().item()
        if name.endswith("bias"):
            assert std == 0
        elif "norm" in name:
            assert parameter.eq(1).all()
        else:
            assert std == pytest.approx(0.005 if name.endswith(("proj.weight", "fc2.weight")) else 0.02, rel=0.05)


def test_bad_input_is_refused():
    with pytest.raises(ValueError, match="width 10 is not divisible by heads 4"):
        GPTConfig(width=10, heads=4)
    with pytest.raises(ValueError, match="depth 0"):
        GPTConfig(depth=0)
    with pytest.raises(ValueError, match="std 0 must be above 0"):
        GPTConfig(std=0)
    with pytest.raises(ValueError, match="no model 'GPT-5'; there are GPT-1"):
        GPTConfig.from_name("GPT-5")
    with pytest.raises(ValueError, match="13 tokens; this model takes 12"):
        model()(torch.zeros(1, 13, dtype=torch.long))
    full = model().start(torch.zeros(1, 12, dtype=torch.long))
    with pytest.raises(ValueError, match="13 tokens; this model takes 12"):
        model().step(torch.zeros(1, dtype=torch.long), full)


@pytest.mark.parametrize("pre_norm", [True, False])
def test_complexity_is_what_pytorch_counts(pre_norm):
    config = GPTConfig(**{**vars(SMALL), "pre_norm": pre_norm})
    with torch.device("meta"):
        found = complexity.measure(GPT(config), torch.zeros(1, config.longest, dtype=torch.long))
    assert config.complexity() == found


def test_a_scorer_reads_the_last_layer_and_no_token_sees_what_follows():
    torch.manual_seed(0)
    scorer, tokens = GPTScorer(SMALL), torch.randint(11, (3, 10), generator=torch.Generator().manual_seed(1))
    mask = torch.tensor([[False] * pads + [True] * (10 - pads) for pads in (0, 2, 5)])
    found = scorer(tokens, mask)
    expected = scorer.trunk.encode(tokens, mask) @ scorer.head.weight[0] + scorer.head.bias
    torch.testing.assert_close(found, expected)
    torch.testing.assert_close(scorer(tokens[:, :7], mask[:, :7]), found[:, :7])
    torch.testing.assert_close(scorer(tokens[2:, 5:]), found[2:, 5:])  # padding on the left changes nothing
    wide = GPTScorer(GPTConfig(vocabulary=11, longest=12, width=1024, depth=1, heads=4))
    assert wide.head.weight.std().item() == pytest.approx(1025**-0.5, rel=0.1)
    assert wide.head.bias.item() == 0


def test_policy_and_value_network_share_nothing():
    model = ActorCritic(SMALL)
    policy, value = (sum(p.numel() for p in part.parameters()) for part in (model.policy, model.value))
    assert value == policy + SMALL.width + 1
    assert sum(p.numel() for p in model.parameters()) == policy + value

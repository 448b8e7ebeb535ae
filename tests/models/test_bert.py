import pytest
import torch

from ditbook.metrics import complexity
from ditbook.models.bert import BERT, SIZES, BERTConfig

CONFIG = BERTConfig(vocabulary=40, positions=12, width=24, depth=2, heads=3)


def make(**changes):
    torch.manual_seed(0)
    model = BERT(BERTConfig(**{**vars(CONFIG), **changes}))
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    return model


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"width": 25}, "width 25 is not divisible by heads 3"),
        ({"segments": 0}, "segments 0 must be at least 1"),
        ({"pad": 40}, "pad 40 must lie in 0 to 39"),
    ],
)
def test_configs_that_do_not_fit(change, message):
    with pytest.raises(ValueError, match=message):
        BERTConfig(**{**vars(CONFIG), **change})


def test_names_are_sizes():
    assert BERTConfig.from_name("bert-base") == BERTConfig()
    with pytest.raises(ValueError, match="no model 'bert-huge'; there are bert-tiny, bert-mini, bert-base, bert-large"):
        BERTConfig.from_name("bert-huge")


HEADS = ("masked-word head", "next-sentence head")
COUNTS = {  # computed from the published configs; without the heads, and with both
    "bert-tiny": (4_385_920, None),
    "bert-mini": (11_170_560, None),
    "bert-base": (109_482_240, 110_106_428),
    "bert-large": (335_141_888, 336_226_108),
}


@pytest.mark.equation("4.7", of="ditbook.models.bert.BERTConfig.parameters", against="counts of the published models")
@pytest.mark.parametrize("name", SIZES)
def test_the_counts_of_the_published_models(name):
    parts = BERTConfig.from_name(name).parameters()
    without, both = COUNTS[name]
    assert sum(parts.values()) - sum(parts[head] for head in HEADS) == without
    if both:
        assert sum(parts.values()) == both


def test_other_counts_of_the_base_models():
    parts = BERTConfig().parameters()
    assert sum(parts.values()) - parts["pooler"] - parts["next-sentence head"] == 109_514_298
    assert sum(parts[name] for name in ("embeddings", "layers", "pooler", "next-sentence head")) == 109_483_778
    cased = BERTConfig(vocabulary=28_996).parameters()
    assert sum(count for part, count in cased.items() if part not in HEADS) == 108_310_272


@pytest.mark.parametrize("config", [CONFIG, BERTConfig(), BERTConfig(width=96, depth=3, heads=4, causal=True)])
def test_complexity_is_what_a_running_model_takes(config):
    with torch.device("meta"):
        model, tokens = BERT(config), torch.ones(1, 7, dtype=torch.long)
        assert config.complexity(tokens=7) == complexity.measure(model, tokens)
        mine = config.parameters()
        assert mine["layers"] == sum(p.numel() for p in model.layers.parameters())
        assert mine["pooler"] == sum(p.numel() for p in model.pooler.parameters())


def test_padding_changes_nothing():
    model, tokens = make(), torch.tensor([[5, 9, 3, 7, 7]])
    padded = torch.cat([tokens, torch.zeros(1, 4, dtype=torch.long)], dim=1)
    words, sentences = model(tokens)
    more, same = model(padded)
    torch.testing.assert_close(more[:, :5], words)
    torch.testing.assert_close(same, sentences)
    assert (model.attention_maps(padded)[..., 5:] == 0).all()


def test_each_token_sees_all_others_or_in_a_causal_model_the_earlier_ones():
    tokens, changed = torch.tensor([[5, 9, 3, 7, 8]]), torch.tensor([[5, 9, 3, 6, 8]])
    both, left = make(), make(causal=True)
    assert not torch.isclose(both.encode(tokens)[0, 0], both.encode(changed)[0, 0]).any()
    torch.testing.assert_close(left.encode(tokens)[0, :3], left.encode(changed)[0, :3])
    assert not torch.isclose(left.encode(tokens)[0, 3:], left.encode(changed)[0, 3:]).all()
    maps = left.attention_maps(tokens)
    assert (maps.triu(1) == 0).all()
    torch.testing.assert_close(maps.sum(-1), torch.ones(1, 2, 3, 5))


def test_segments_and_places_matter():
    model, tokens = make(), torch.tensor([[5, 9, 3, 7]])
    zeros = torch.zeros_like(tokens)
    torch.testing.assert_close(model.encode(tokens), model.encode(tokens, segments=zeros))
    second = model.encode(tokens, segments=torch.tensor([[0, 0, 1, 1]]))
    assert not torch.isclose(second, model.encode(tokens)).all()
    assert not torch.allclose(model.encode(tokens[:, [0, 2, 1, 3]])[:, [0, 2, 1, 3]], model.encode(tokens))


def test_wrong_input_is_refused():
    model, tokens = make(), torch.ones(2, 13, dtype=torch.long)
    with pytest.raises(ValueError, match="a text of 13 tokens; this model takes 12 at most"):
        model(tokens)
    with pytest.raises(ValueError, match=r"segments \(2, 4\) for tokens \(2, 5\)"):
        model(tokens[:, :5], segments=tokens[:, :4])

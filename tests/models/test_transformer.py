import math

import pytest
import torch

from ditbook import generation
from ditbook.data.tokenizer import PAD
from ditbook.models.transformer import Transformer, TransformerConfig

B, S, T = 3, 7, 6


def make(pre_norm=True, **changes):
    torch.manual_seed(0)
    model = Transformer(
        TransformerConfig(source=11, target=9, width=12, depth=2, heads=3, pre_norm=pre_norm, longest=10, **changes)
    )
    source, target = torch.randint(4, 11, (B, S)), torch.randint(4, 9, (B, T))
    source[1, 4:] = PAD
    return model.double(), source, target


@pytest.mark.parametrize("pre_norm", [False, True])
def test_cached_decoding_is_uncached_decoding(pre_norm):
    model, source, target = make(pre_norm)
    logits, state = model(source, target), model.start(source)
    for t in range(T):
        one, state = model.step(target[:, t], state)
        torch.testing.assert_close(one, logits[:, t])
    state = model.start(source)
    first, state = model.decode(target[:, :2], state)
    second, _ = model.decode(target[:, 2:], state)
    torch.testing.assert_close(torch.cat([first, second], dim=1), logits)


def test_greedy_with_the_cache_is_greedy_without():
    model, source, _ = make()
    written = generation.greedy(model.step, model.start(source), first=1, eos=2, max_length=8)
    tokens = torch.ones(B, 1, dtype=torch.long)
    while tokens.shape[1] <= written.shape[1]:
        tokens = torch.cat([tokens, model(source, tokens)[:, -1:].argmax(-1)], dim=1)
    for row, wanted in zip(written.tolist(), tokens[:, 1:].tolist(), strict=True):
        end = row.index(2) + 1 if 2 in row else len(row)
        assert row[:end] == wanted[:end]


def test_beam_search_reorders_the_caches():
    """Each sentence has the probability that the whole model gives it without a cache, and K = 1 is greedy."""
    model, source, _ = make()
    best, scores = generation.beam(model.step, model.start(source), first=1, eos=2, max_length=6, width=4)
    logits = model(source, torch.cat([torch.ones(B, 1, dtype=torch.long), best[:, :-1]], dim=1))
    log_p = logits.log_softmax(-1).gather(2, best[..., None])[..., 0]
    written = (best == 2).cumsum(1) - (best == 2).long() == 0  # up to the first end
    torch.testing.assert_close((log_p * written).sum(1).float(), scores.float())
    one, _ = generation.beam(model.step, model.start(source), first=1, eos=2, max_length=6, width=1)
    assert torch.equal(one, generation.greedy(model.step, model.start(source), first=1, eos=2, max_length=6))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"depth": 0}, "depth 0 must be at least 1"),
        ({"longest": -1}, "longest -1 must be"),
        ({"width": 9, "heads": 3}, "width 9 must be even"),
        ({"heads": 5}, "width 12 is not divisible by heads 5; take a multiple of 5"),
        ({"pad": 11}, "pad 11 must lie in 0 to 10"),
    ],
)
def test_configs_that_do_not_fit(change, message):
    with pytest.raises(ValueError, match=message):
        TransformerConfig(**{"source": 11, "target": 9, "width": 12, "heads": 3, **change})


def test_padding_is_what_the_config_says():
    model, source, target = make(pad=7)
    source[source == 0], source[:, 5:] = 8, 7
    torch.testing.assert_close(model(source, target), model(source[:, :5], target))


def test_no_target_token_sees_a_later_one():
    model, source, target = make()
    changed = target.clone()
    changed[:, 3] = (changed[:, 3] - 3) % 5 + 4
    before, after = model(source, target), model(source, changed)
    torch.testing.assert_close(after[:, :3], before[:, :3])
    assert not torch.isclose(after[:, 3:], before[:, 3:]).all(-1).any()


def test_padding_changes_nothing():
    model, source, target = make()
    longer = torch.cat([source, torch.full((B, 3), PAD)], dim=1)
    torch.testing.assert_close(model(longer, target), model(source, target))
    torch.testing.assert_close(model(source[1:2, :4], target[1:2]), model(source, target)[1:2])


def test_without_positions_an_encoder_treats_a_sentence_as_a_set():
    model, source, _ = make()
    order = torch.tensor([3, 0, 2, 1, 6, 5, 4])

    def encode(tokens):
        x = model.embed(model.embed_source, tokens)
        for layer in model.encoder:
            x = layer(x)
        return x

    with_places = encode(source[:, order]), encode(source)[:, order]
    assert not torch.allclose(*with_places)
    model.positions.zero_()
    torch.testing.assert_close(encode(source[:, order]), encode(source)[:, order])


@pytest.mark.equation("3.6", of="ditbook.layers.embeddings.sincos_1d", against="sines and cosines, place by place")
@pytest.mark.equation("3.7", of="ditbook.models.transformer.Transformer.embed", against="rows of the table, times √D")
def test_embeddings_are_words_times_the_root_of_the_width_plus_waves():
    model, source, _ = make()
    x = model.embed(model.embed_source, source)
    words = model.embed_source.weight[source]
    place = torch.arange(S, dtype=torch.float64)
    for k in range(6):
        omega = 10_000 ** (-2 * k / 12)
        torch.testing.assert_close(
            x[0, :, k], words[0, :, k] * math.sqrt(12) + (place * omega).sin(), atol=1e-6, rtol=0
        )
        wanted = words[0, :, 6 + k] * math.sqrt(12) + (place * omega).cos()
        torch.testing.assert_close(x[0, :, 6 + k], wanted, atol=1e-6, rtol=0)
    torch.testing.assert_close(model.embed(model.embed_source, source[:, 2:4], start=2), x[:, 2:4])


def test_too_long_a_sentence_is_refused():
    model, source, target = make()
    with pytest.raises(ValueError, match="a sentence of 14 tokens is longer than the 10 this model takes"):
        model(torch.cat([source, source], dim=1), target)
    state = model.start(source)
    _, state = model.decode(torch.full((B, 10), 5), state)
    with pytest.raises(ValueError, match="a sentence of 11 tokens"):
        model.step(torch.full((B,), 5), state)

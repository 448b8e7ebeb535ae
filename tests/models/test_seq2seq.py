import pytest
import torch

from ditbook import generation
from ditbook.models.seq2seq import KINDS, Seq2Seq, Seq2SeqConfig

PAD, BOS, EOS = 0, 1, 2
B, S, T = 3, 7, 5


def make(kind, **changes):
    torch.manual_seed(0)
    model = Seq2Seq(Seq2SeqConfig(source=11, target=9, width=6, attention=kind, **changes)).double()
    source, target = torch.randint(4, 11, (B, S)), torch.randint(4, 9, (B, T))
    source[1, 5:] = PAD
    source[2, 3:] = PAD
    return model, source, target


@pytest.mark.parametrize("kind", KINDS)
def test_padding_changes_nothing(kind):
    model, source, target = make(kind)
    longer = torch.cat([source, torch.full((B, 4), PAD)], dim=1)
    torch.testing.assert_close(model(longer, target), model(source, target))
    torch.testing.assert_close(model(source[2:, :3], target[2:]), model(source, target)[2:])


@pytest.mark.parametrize("kind", KINDS)
def test_step_by_step_is_at_once(kind):
    model, source, target = make(kind)
    logits, state = model(source, target), model.start(source)
    for t in range(T):
        one, state = model.step(target[:, t], state)
        torch.testing.assert_close(one, logits[:, t])


@pytest.mark.equation("2.3", of="ditbook.models.seq2seq.Attention", against="sums of one, zeros at padding")
@pytest.mark.parametrize("kind", ["additive", "dot"])
def test_attention_weights_sum_to_one_over_the_real_tokens(kind):
    model, source, target = make(kind)
    weights = model.alignment(source, target)
    assert weights.shape == (B, T, S)
    torch.testing.assert_close(weights.sum(-1), torch.ones(B, T, dtype=torch.float64))
    assert (weights[1, :, 5:] == 0).all()
    assert (weights[2, :, 3:] == 0).all()
    assert (weights[2, :, :3] > 0).all()


@pytest.mark.parametrize("kind", KINDS)
def test_the_padding_token_is_that_of_the_config(kind):
    model, source, target = make(kind)
    other, _, _ = make(kind, pad=3)
    torch.testing.assert_close(other(source.masked_fill(source == PAD, 3), target), model(source, target))


@pytest.mark.parametrize("kind", KINDS)
def test_greedy_from_the_state_is_greedy_from_the_beginning(kind):
    model, source, _ = make(kind)
    tokens = torch.full((B, 1), BOS)
    for _ in range(8):
        tokens = torch.cat([tokens, model(source, tokens)[:, -1:].argmax(-1)], dim=1)
    written = generation.greedy(model.step, model.start(source), first=BOS, max_length=8)
    assert torch.equal(written, tokens[:, 1:])
    narrow, _ = generation.beam(model.step, model.start(source), first=BOS, max_length=8, width=1, eos=EOS)
    greedy = generation.greedy(model.step, model.start(source), first=BOS, max_length=8, eos=EOS)
    assert torch.equal(narrow, greedy)


def test_bad_input_is_refused():
    model, source, target = make("none")
    with pytest.raises(ValueError, match="has no attention"):
        model.alignment(source, target)
    with pytest.raises(ValueError, match="no kind of attention 'self'; there are none, additive, dot"):
        Seq2SeqConfig(source=5, target=5, attention="self")
    for name in ("source", "target", "width"):
        with pytest.raises(ValueError, match=f"{name} -1 must be at least 1"):
            Seq2SeqConfig(**{"source": 5, "target": 5, name: -1})
    with pytest.raises(ValueError, match="pad 5 must lie in 0 to 4"):
        Seq2SeqConfig(source=5, target=5, pad=5)

"""The recurrent encoder–decoder against one built from torch.nn.GRU with the same weights: outputs and gradients."""

import pytest
import torch
from torch import nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from ditbook.models.seq2seq import Seq2Seq, Seq2SeqConfig

PAD, H, B, S, T = 0, 6, 3, 7, 5
NAMES = {"weight_ih": "input.weight", "bias_ih": "input.bias", "weight_hh": "recurrent.weight"}
NAMES["bias_hh"] = "recurrent.bias"


def make(kind):
    torch.manual_seed(0)
    model = Seq2Seq(Seq2SeqConfig(source=11, target=9, width=H, attention=kind)).double()
    source, target = torch.randint(4, 11, (B, S)), torch.randint(4, 9, (B, T))
    source[1, 5:] = PAD
    source[2, 3:] = PAD
    return model, source, target


def gru(layers, **options):
    """A torch.nn.GRU that shares the weights of ours (forwards, and backwards if there are two)."""
    theirs = nn.GRU(H, H, batch_first=True, bidirectional=len(layers) == 2, **options).double()
    for layer, suffix in zip(layers, ("_l0", "_l0_reverse"), strict=False):
        for name, other in NAMES.items():
            module, parameter = other.split(".")
            setattr(theirs, name + suffix, getattr(getattr(layer, module), parameter))
    return theirs


def reference(model, source, target):
    """The same function, from packed sequences and loops over single scores."""
    lengths = (source != PAD).sum(1)
    packed = pack_padded_sequence(model.embed_source(source), lengths, batch_first=True)
    out, last = gru([model.forwards, model.backwards])(packed)
    memory, _ = pad_packed_sequence(out, batch_first=True)
    hidden = torch.tanh(model.bridge(torch.cat([last[0], last[1]], dim=-1)))
    states, _ = gru([model.decoder])(model.embed_target(target), hidden[None])
    if model.config.attention == "none":
        return model.out(states), None
    rows = []
    for b in range(B):
        for t in range(T):
            scores = [score(model.attention, states[b, t], memory[b, s]) for s in range(lengths[b])]
            weights = torch.stack(scores).softmax(0)
            context = (weights[:, None] * memory[b, : lengths[b]]).sum(0)
            rows.append(model.out(torch.tanh(model.combine(torch.cat([states[b, t], context])))))
    return torch.stack(rows).view(B, T, -1), memory


def score(attention, query, memory):
    key = attention.key.weight @ memory
    if attention.kind == "dot":
        return query @ key
    inner = attention.query.weight @ query + attention.query.bias + key
    return (attention.score.weight @ torch.tanh(inner)).squeeze()


def compare(kind):
    model, source, target = make(kind)
    logits, (wanted, _) = model(source, target), reference(model, source, target)
    torch.testing.assert_close(logits, wanted)
    weight = torch.randn_like(logits)
    ours = torch.autograd.grad((logits * weight).sum(), list(model.parameters()))
    theirs = torch.autograd.grad((wanted * weight).sum(), list(model.parameters()))
    for name, got, want in zip(dict(model.named_parameters()), ours, theirs, strict=True):
        torch.testing.assert_close(got, want, msg=lambda text, name=name: f"{name}: {text}")


@pytest.mark.equation(
    "2.1",
    of="ditbook.models.seq2seq.Seq2Seq.start",
    against="two-way torch.nn.GRU, gradients too",
)
@pytest.mark.equation("2.2", of="ditbook.models.seq2seq.Seq2Seq.start", against="torch.nn.GRU, gradients too")
def test_without_attention():
    compare("none")


@pytest.mark.equation("2.5", of="ditbook.models.seq2seq.Attention", against="single scores in a loop, gradients too")
@pytest.mark.equation(
    "2.7", of="ditbook.models.seq2seq.Seq2Seq.decode", against="single scores in a loop, gradients too"
)
def test_additive_attention():
    compare("additive")


@pytest.mark.equation("2.6", of="ditbook.models.seq2seq.Attention", against="single scores in a loop, gradients too")
@pytest.mark.equation("2.4", of="ditbook.models.seq2seq.Attention", against="single scores in a loop, gradients too")
def test_dot_product_attention():
    compare("dot")

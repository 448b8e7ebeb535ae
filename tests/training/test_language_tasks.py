"""The tasks of the chapter on GPT: what they train on, the loss, and how the trained model is measured."""

import itertools
import math

import pytest
import torch
import torch.nn.functional as F

from ditbook import weights
from ditbook.data import mappings
from ditbook.models.gpt import GPT, GPTConfig
from ditbook.training.loop import Context
from ditbook.training.tasks import continuation
from ditbook.training.tasks.mappings import FollowMappings, accuracy

CONTEXT = Context(0, torch.Generator())
SMALL = GPTConfig(vocabulary=300, longest=8, width=8, depth=1, heads=2)
BIGRAM = torch.randn(300, 300, generator=torch.Generator().manual_seed(0))


def bigram(tokens):
    return BIGRAM[tokens]


def test_the_manual_is_read_in_pieces_that_begin_at_every_token():
    task = continuation.ContinueManual(vocabulary=300, length=8)
    tokens, text = task.data()["tokens"], continuation.text("train")
    ids = torch.tensor(continuation.words(300).encode(text))
    assert tokens.shape == (len(ids) - 8, 9)
    assert torch.equal(tokens[1000], ids[1000:1009])
    assert continuation.words(300).decode(ids.tolist()) == text


def test_the_loss_of_the_manual_is_that_of_every_next_token():
    task = continuation.ContinueManual(vocabulary=300, length=8)
    batch = {"tokens": task.data()["tokens"][:4]}
    wanted = F.cross_entropy(BIGRAM[batch["tokens"][:, :-1]].flatten(0, 1), batch["tokens"][:, 1:].flatten())
    torch.testing.assert_close(task.loss(bigram, batch, CONTEXT), wanted)


@pytest.mark.equation(
    "5.7", of="ditbook.training.tasks.continuation.ContinueManual.evaluate", against="a table of pairs, token by token"
)
def test_perplexity_is_counted_for_each_character(monkeypatch):
    short = continuation.text("validation")[:500]
    monkeypatch.setattr(continuation, "text", lambda split: short)
    ids = continuation.words.__wrapped__(300).encode(short)
    nats = sum(-BIGRAM[a].log_softmax(0)[b].item() for a, b in itertools.pairwise(ids))
    monkeypatch.setattr(continuation, "words", lambda vocabulary: continuation.BPETokenizer.train([short], vocabulary))
    (found,) = continuation.ContinueManual(vocabulary=300, length=8).evaluate(bigram).values()
    assert found == pytest.approx(math.exp(nats / 499), abs=1e-3)


@pytest.mark.parametrize("count", [2, 3, 5, 8, 9, 12, 13, 40])
def test_every_token_is_predicted_once_from_half_the_context_or_more(count):
    torch.manual_seed(0)
    model, tokens = GPT(SMALL).eval(), torch.randint(300, (count,))
    found = continuation.surprise(model, tokens, 8)
    assert found.shape == (count - 1,)
    for place in range(1, count):
        start = max(0, 4 * ((place - 1) // 4) - 4)
        with torch.no_grad():
            wanted = -model(tokens[None, start:place])[0, -1].log_softmax(-1)[tokens[place]]
        torch.testing.assert_close(found[place - 1], wanted)


@pytest.mark.equation(
    "5.1", of="ditbook.training.tasks.continuation.surprise", against="all texts of three tokens, which sum to one"
)
def test_the_probabilities_of_all_texts_sum_to_one():
    torch.manual_seed(0)
    model = GPT(GPTConfig(vocabulary=5, longest=8, width=8, depth=1, heads=2, std=1.0)).eval()
    total = 0.0
    for text in itertools.product(range(5), repeat=3):
        p = (-continuation.surprise(model, torch.tensor([2, *text]), 8).sum()).exp().item()
        with torch.no_grad():
            each = [model(torch.tensor([[2, *text[:n]]]))[0, -1].softmax(-1)[text[n]].item() for n in range(3)]
        assert p == pytest.approx(math.prod(each), rel=1e-4)
        total += p
    assert total == pytest.approx(1, abs=1e-4)


def test_only_values_are_predicted_of_mappings():
    task = FollowMappings(sequences=6, pairs=5)
    tokens = task.data()["tokens"]
    assert tokens.shape == (6, 10)
    logits = torch.randn(6, 9, 32)
    wanted = F.cross_entropy(logits[:, ::2].flatten(0, 1), tokens[:, 1::2].flatten())
    torch.testing.assert_close(task.loss(lambda _: logits, {"tokens": tokens}, CONTEXT), wanted)


def looked_up(tokens):
    """Logits of a program that finds the last key among those before it, or else guesses an unused value."""
    logits = torch.zeros(*tokens.shape, 32)
    for row, text in enumerate(tokens.tolist()):
        known = dict(zip(text[:-1:2], text[1::2], strict=True))
        unused = next((v for v in range(16, 32) if v not in known.values()), 16)
        logits[row, -1, known.get(text[-1], unused)] = 1
    return logits


@pytest.mark.equation(
    "5.10", of="ditbook.data.mappings.best_accuracy", against="a program that looks the pair up, or guesses"
)
@pytest.mark.parametrize("examples", [0, 1, 4, 8, 15, 16])
def test_the_best_accuracy_is_reached_by_a_look_up(examples):
    best = mappings.best_accuracy(examples)
    found = accuracy(looked_up, examples, 4000)
    assert found == pytest.approx(best, abs=4 * math.sqrt(best * (1 - best) / 4000) + 1e-9)


def test_the_trained_weights_are_what_the_metadata_say():
    model = weights.load("gpt-mappings")
    stored = weights.metadata("gpt-mappings")["metric"]
    assert stored["accuracy after 8 examples, 2,000 new mappings"] == pytest.approx(accuracy(model, 8, 2000), abs=0.005)
    assert model.config.vocabulary == mappings.VOCABULARY

import math

import pytest
import torch
import torch.nn.functional as F

from ditbook.data.tokenizer import BOS, EOS, PAD
from ditbook.metrics.retrieval import recall_at
from ditbook.metrics.text import exact_match
from ditbook.objectives.tokens import next_token_loss


@pytest.mark.equation(
    "3.14", of="ditbook.objectives.tokens.next_token_loss", against="torch.nn.functional.cross_entropy"
)
@pytest.mark.parametrize("smoothing", [0.0, 0.1, 0.7])
def test_label_smoothing_is_that_of_torch(smoothing):
    torch.manual_seed(0)
    logits, targets = torch.randn(3, 6, 9, requires_grad=True), torch.randint(4, 9, (3, 6))
    targets[1, 4:] = PAD
    ours = next_token_loss(logits, targets, smoothing)
    wanted = F.cross_entropy(logits.flatten(0, 1), targets.flatten(), ignore_index=PAD, label_smoothing=smoothing)
    torch.testing.assert_close(ours, wanted)
    torch.testing.assert_close(*(torch.autograd.grad(loss, logits, retain_graph=True)[0] for loss in (ours, wanted)))


@pytest.mark.equation("1.3", of="ditbook.objectives.tokens.next_token_loss", against="a loop over places")
@pytest.mark.equation("1.4", of="ditbook.objectives.tokens.next_token_loss", against="size of the vocabulary")
def test_the_loss_is_the_mean_surprise():
    torch.manual_seed(0)
    logits, targets = torch.randn(2, 4, 6), torch.tensor([[4, 5, 4, PAD], [5, 5, PAD, PAD]])
    surprise = [-math.log(logits[b, t].softmax(0)[targets[b, t]]) for b in range(2) for t in range(4) if targets[b, t]]
    assert next_token_loss(logits, targets).item() == pytest.approx(sum(surprise) / 5, rel=1e-5)
    flat = next_token_loss(torch.zeros(2, 4, 50), targets)
    assert flat.exp().item() == pytest.approx(50, rel=1e-5)  # perplexity of knowing nothing


def test_nothing_but_padding_is_refused():
    with pytest.raises(ValueError, match="all targets are padding"):
        next_token_loss(torch.zeros(2, 3, 5), torch.full((2, 3), PAD))


def test_exact_match_counts_every_word_up_to_the_end():
    wanted = torch.tensor([[7, 8, EOS, PAD], [7, 8, 9, EOS], [7, EOS, PAD, PAD], [EOS, PAD, PAD, PAD]])
    assert exact_match(wanted, wanted, EOS).all()
    written = torch.tensor([[7, 8, EOS], [7, 8, 9], [7, EOS, 5], [EOS, EOS, EOS]])
    assert exact_match(written, wanted, EOS).tolist() == [True, True, True, True]
    written = torch.tensor([[7, 8, 9, EOS], [7, 8, EOS, 9], [8, EOS, EOS, EOS], [BOS, EOS, EOS, EOS]])
    assert exact_match(written, wanted, EOS).tolist() == [False] * 4


@pytest.mark.equation("8.8", of="ditbook.metrics.retrieval.recall_at", against="counted by hand")
def test_recall_counts_the_rows_whose_right_column_is_among_the_best():
    logits = torch.tensor([[3.0, 1.0, 2.0], [5.0, 4.0, 0.0], [9.0, 8.0, 7.0]])  # right: first, second, third
    assert [recall_at(logits, k) for k in (1, 2, 3)] == pytest.approx([1 / 3, 2 / 3, 1])
    for bad, k in ((logits[:2], 1), (logits, 0), (logits, 4)):
        with pytest.raises(ValueError, match="recall at"):
            recall_at(bad, k)

import math

import pytest
import torch
import torch.nn.functional as F

from ditbook.objectives.tokens import next_token_loss

PAD = 0


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


@pytest.mark.parametrize("pad", [0, 5, -100])
def test_targets_that_do_not_count_have_no_gradient(pad):
    torch.manual_seed(0)
    logits, targets = torch.randn(2, 4, 6, requires_grad=True), torch.tensor([[1, 2, 3, 4], [4, 3, pad, pad]])
    loss = next_token_loss(logits, targets, 0.1, pad=pad)
    torch.testing.assert_close(loss, F.cross_entropy(logits.mT, targets, ignore_index=pad, label_smoothing=0.1))
    (gradient,) = torch.autograd.grad(loss, logits)
    assert (gradient[1, 2:] == 0).all()
    assert (gradient[targets != pad] != 0).all()


def test_the_loss_runs_on_the_meta_device():
    loss = next_token_loss(torch.zeros(2, 3, 5, device="meta"), torch.zeros(2, 3, dtype=torch.long, device="meta"), 0.1)
    assert loss.shape == ()
    assert loss.device.type == "meta"


def test_bad_input_is_refused():
    with pytest.raises(ValueError, match="all targets are padding"):
        next_token_loss(torch.zeros(2, 3, 5), torch.full((2, 3), PAD))
    for smoothing in (-0.1, 1.0):
        with pytest.raises(ValueError, match=r"smoothing must be in \[0, 1\)"):
            next_token_loss(torch.zeros(2, 3, 5), torch.ones(2, 3, dtype=torch.long), smoothing)
    with pytest.raises(ValueError, match=r"targets \(3, 2\) for logits \(2, 3, 5\)"):
        next_token_loss(torch.zeros(2, 3, 5), torch.ones(3, 2, dtype=torch.long))

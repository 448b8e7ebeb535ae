"""The Inception Score: are pictures clear, and are there many kinds?

With the classes of the Inception network it is the published score. Here the classifier is the caller's.
Source: Salimans et al. 2016, "Improved Techniques for Training GANs", section 4.
"""

import torch
from torch import Tensor


def inception_score(probabilities: Tensor, splits: int = 10) -> tuple[float, float]:
    """exp of the mean divergence between the classes of a picture and those of all pictures.

    Args:
        probabilities: of the K classes for each of N pictures, (N, K); rows sum to one.
        splits: parts of equal size, in the order given; the score is computed in each.

    Returns:
        Mean and standard deviation over the splits. 1 is the worst mean, K the best.

    Raises:
        ValueError: not of that shape, not probabilities, or fewer pictures than splits.
    """
    if probabilities.ndim != 2 or 0 in probabilities.shape:
        raise ValueError(f"probabilities of shape {tuple(probabilities.shape)}; expected (N, K)")
    p = probabilities.detach().double()
    if not ((p >= 0).all() and torch.allclose(p.sum(dim=1), torch.ones(len(p), dtype=p.dtype), atol=1e-4)):
        raise ValueError("the rows are no probabilities: they must be positive and sum to one; take a softmax")
    if not 1 <= splits <= len(p):
        raise ValueError(f"{len(p)} pictures cannot be split into {splits} parts")
    size = len(p) // splits
    scores = torch.stack([_score(p[k * size : (k + 1) * size]) for k in range(splits)])
    return scores.mean().item(), scores.std(correction=0).item()


def _score(p: Tensor) -> Tensor:
    """(N, K) → exp E KL(p(y|x) ‖ p(y))."""
    overall = p.mean(dim=0)
    return (torch.xlogy(p, p) - torch.xlogy(p, overall)).sum(dim=1).mean().exp()  # (17.7)

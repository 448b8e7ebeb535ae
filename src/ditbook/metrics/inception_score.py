"""The Inception Score: is the class of each image certain, and are there many classes?

With the classes of the Inception network it is the published score. Here the classifier is the caller's.
Letters: `N` images, `K` classes, `S` splits.
Source: Salimans et al. 2016, "Improved Techniques for Training GANs", section 4.
"""

import torch
from einops import rearrange
from torch import Tensor


def inception_score(probabilities: Tensor, splits: int = 10) -> tuple[float, float]:
    """exp of the mean divergence of the classes of one image from those of all images.

    Args:
        probabilities: of the K classes for each of N images, (N, K); rows sum to one.
        splits: parts of equal size, in the order given, in each of which the score is computed; images that are left
            over are not used.

    Returns:
        Mean and standard deviation over the splits. 1 is the worst mean, K the best.

    Raises:
        ValueError: not of that shape, not probabilities, or fewer images than splits.
    """
    if probabilities.ndim != 2 or 0 in probabilities.shape:
        raise ValueError(f"probabilities of shape {tuple(probabilities.shape)}; expected (N, K)")
    p = probabilities.detach().cpu().double()
    if not ((p >= 0).all() and ((p.sum(dim=1) - 1).abs() <= 1e-4).all()):
        raise ValueError("the rows are no probabilities: they must be positive and sum to one; take a softmax")
    if not 1 <= splits <= len(p):
        raise ValueError(f"{len(p)} images cannot be split into {splits} parts")
    p = rearrange(p[: len(p) // splits * splits], "(s n) k -> s n k", s=splits)
    overall = p.mean(dim=1, keepdim=True)  # (S, 1, K)
    scores = (torch.xlogy(p, p) - torch.xlogy(p, overall)).sum(dim=2).mean(dim=1).exp()  # (S,)  # (17.7)
    return scores.mean().item(), scores.std(correction=0).item()

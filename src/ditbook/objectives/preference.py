"""Learning from comparisons: the reward model's loss, DPO's, and what choosing the best of n texts does.

Letters: `B` pairs of texts, `T` tokens, `V` vocabulary, `N` texts sampled for a prompt.
Sources: Bradley and Terry 1952; Nakano et al. 2021 (WebGPT); Rafailov et al. 2023 (DPO).
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor


def log_probs(logits: Tensor, tokens: Tensor, mask: Tensor) -> Tensor:
    """Log-probability of each token; the sum over a row is that of the text (6.2).

    Args:
        logits: before each token, (B, T, V).
        tokens: (B, T).
        mask: True where a token counts, (B, T); elsewhere the result is 0, so that sums leave padding out.

    Returns:
        (B, T), in nats.

    Raises:
        ValueError: the shapes differ.
    """
    if logits.shape[:-1] != tokens.shape or mask.shape != tokens.shape:
        shapes = f"logits {tuple(logits.shape)}, tokens {tuple(tokens.shape)}, mask {tuple(mask.shape)}"
        raise ValueError(f"{shapes}; expected (B, T, V), (B, T) and (B, T)")
    log_p = logits.log_softmax(dim=-1).gather(-1, tokens[..., None])[..., 0]  # (6.2)
    return log_p.masked_fill(~mask, 0)


def bradley_terry_loss(first: Tensor, second: Tensor, preferred: Tensor) -> Tensor:
    """Mean cross-entropy of comparisons, if a text is preferred with probability σ(its score − the other's).

    Args:
        first, second: scores of the two texts of each pair, (B,).
        preferred: 1 where the first was preferred, 0 where the second was, ½ for a tie, (B,).

    Raises:
        ValueError: the shapes differ.

    Source: Stiennon et al. 2020, section 3.4; Nakano et al. 2021, section 3.2, for ties as ½.
    """
    if not first.shape == second.shape == preferred.shape:
        shapes = f"{tuple(first.shape)}, {tuple(second.shape)} and {tuple(preferred.shape)}"
        raise ValueError(f"scores and preferences of shapes {shapes}; expected one of each for each pair")
    margin = first - second
    return -(preferred * F.logsigmoid(margin) + (1 - preferred) * F.logsigmoid(-margin)).mean()  # (6.3)


def implicit_reward(log_p: Tensor, reference_log_p: Tensor, beta: float) -> Tensor:
    """The reward for which a policy is the best under a KL penalty, up to a constant of each prompt.

    Args:
        log_p, reference_log_p: log-probabilities of whole texts, sums over their tokens, (B,).
        beta: weight of the penalty.

    Source: Rafailov et al. 2023, equation 5.
    """
    return beta * (log_p - reference_log_p)  # (6.18)


def dpo_loss(
    log_p: tuple[Tensor, Tensor], reference_log_p: tuple[Tensor, Tensor], preferred: Tensor, beta: float
) -> Tensor:
    """The loss of a reward model whose scores are the implicit rewards of the policy.

    Args:
        log_p, reference_log_p: log-probabilities of the first texts and of the second, sums over tokens, (B,) each.
        preferred: as for `bradley_terry_loss`.
        beta: weight of the KL penalty that the policy answers to.

    Raises:
        ValueError: as `bradley_terry_loss`.

    Source: Rafailov et al. 2023, equation 7.
    """
    first, second = (implicit_reward(p, q, beta) for p, q in zip(log_p, reference_log_p, strict=True))
    return bradley_terry_loss(first, second, preferred)  # (6.19)


def best_of_n_kl(n: float) -> float:
    """Divergence in nats of the best of n texts of a policy from the policy, if scores have a density.

    Where single texts have probabilities, or scores can be equal, it is an upper bound.

    Raises:
        ValueError: n is below 1.

    Source: Stiennon et al. 2020, appendix G.3.
    """
    if n < 1:
        raise ValueError(f"n must be at least 1, not {n}")
    return math.log(n) - (n - 1) / n  # (6.5)


def best_of_n(scores: Tensor, values: Tensor) -> Tensor:
    """Expected value of the text with the best score among n, for every n from 1 to N at once, without bias.

    Of N texts all choices of n are equally likely; the one with the k-th lowest score is the best of
    C(k − 1, n − 1) of C(N, n).

    Args:
        scores: what the best is chosen by, (..., N).
        values: what is averaged, (..., N): the scores themselves, or those of another judge.

    Returns:
        (..., N), float64; column n − 1 is for n.

    Raises:
        ValueError: the shapes differ.

    Source: Nakano et al. 2021, appendix I.
    """
    if scores.shape != values.shape:
        raise ValueError(f"scores {tuple(scores.shape)} and values {tuple(values.shape)} must have one shape")
    count = scores.shape[-1]
    ranked = values.gather(-1, scores.argsort(dim=-1, stable=True)).double()  # worst first
    k = torch.arange(1, count + 1, dtype=torch.float64, device=scores.device)  # (N,)
    n = k[:, None]
    log_weight = _log_choose(k - 1, n - 1) - _log_choose(torch.full_like(n, count), n)  # (n, k)
    weight = log_weight.exp().masked_fill(k < n, 0)
    return ranked @ weight.T  # (6.6)


def _log_choose(n: Tensor, k: Tensor) -> Tensor:
    """Logarithm of the number of ways to choose k of n; without meaning where k > n."""
    return (n + 1).lgamma() - (k + 1).lgamma() - (n - k + 1).clamp(min=1).lgamma()

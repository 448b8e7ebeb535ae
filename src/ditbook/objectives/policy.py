"""Policy gradients for a model that writes tokens: rewards of tokens, advantages, and PPO's losses.

Every mask is True for the tokens that the policy wrote, the end token among them, and False for the padding after it.

Letters: `B` texts, `T` tokens of a text, `V` vocabulary.
Sources: Schulman et al. 2016 (GAE) and 2017 (PPO); Ziegler et al. 2019 and Stiennon et al. 2020 for texts.
"""

import torch
import torch.nn.functional as F
from torch import Tensor


def masked_mean(x: Tensor, mask: Tensor) -> Tensor:
    """Mean over all tokens of the batch that count: each token the same, whatever the length of its text.

    Args:
        x, mask: (B, T).
    """
    return x.masked_fill(~mask, 0).sum() / mask.sum()


def token_rewards(scores: Tensor, log_p: Tensor, reference_log_p: Tensor, mask: Tensor, beta: float) -> Tensor:
    """Rewards of tokens: a KL penalty for each, and for the last one the score of the text.

    Args:
        scores: of whole texts, (B,).
        log_p, reference_log_p: of the tokens under the policy that wrote them and under the reference, (B, T).
        mask: (B, T), with one token at least in each row.
        beta: weight of the penalty. Its sum over a text estimates the divergence between policy and reference.

    Returns:
        (B, T), 0 for padding.

    Source: Ziegler et al. 2019, equation 2; Stiennon et al. 2020, section 3.4.
    """
    places = torch.arange(mask.shape[1], device=mask.device)
    last = places == mask.sum(dim=1, keepdim=True) - 1  # (B, T)
    rewards = last * scores[:, None] - beta * (log_p - reference_log_p)  # (6.15)
    return rewards.masked_fill(~mask, 0)


def advantages(
    rewards: Tensor, values: Tensor, mask: Tensor, *, discount: float = 1.0, decay: float = 0.95
) -> tuple[Tensor, Tensor]:
    """Generalized advantage estimation, and the returns that a value network is trained on.

    Args:
        rewards: of tokens, (B, T).
        values: expected sum of the rewards from each token on, before it is written, (B, T).
        mask: (B, T).
        discount: γ of later rewards, in [0, 1].
        decay: λ, in [0, 1]. 0 trusts the values after one step, 1 does not trust them at all.

    Returns:
        Advantages and returns (advantages + values), each (B, T), 0 for padding.

    Raises:
        ValueError: `discount` or `decay` is out of its range.

    Source: Schulman et al. 2016, equations 11 and 16.
    """
    if not 0 <= discount <= 1 or not 0 <= decay <= 1:
        raise ValueError(f"discount and decay must be in [0, 1], got {discount} and {decay}")
    rewards, values = rewards.masked_fill(~mask, 0), values.masked_fill(~mask, 0)
    deltas = rewards + discount * F.pad(values[:, 1:], (0, 1)) - values  # (6.9)
    found, columns = torch.zeros_like(rewards[:, 0]), []
    for delta in reversed(deltas.unbind(dim=1)):
        found = delta + discount * decay * found  # (6.10)
        columns.append(found)
    result = torch.stack(columns[::-1], dim=1).masked_fill(~mask, 0)
    return result, result + values


def reinforce_loss(log_p: Tensor, advantages: Tensor, mask: Tensor) -> Tensor:
    """Its gradient is that of the expected reward, with the sign of a loss, for texts of the policy itself.

    Args:
        log_p: of the tokens under the policy in training, (B, T).
        advantages: (B, T), no gradient flows through them.
        mask: (B, T).

    Source: Williams 1992.
    """
    return -masked_mean(log_p * advantages, mask)  # (6.7), (6.8)


def ppo_loss(log_p: Tensor, old_log_p: Tensor, advantages: Tensor, mask: Tensor, clip: float) -> Tensor:
    """PPO's clipped objective, with the sign of a loss: texts of an earlier policy can be used for several steps.

    Args:
        log_p: of the tokens under the policy in training, (B, T).
        old_log_p: under the policy that wrote them, (B, T).
        advantages: (B, T).
        mask: (B, T).
        clip: ε, how far the ratio may leave 1 with a gain; infinite for no clipping.

    Source: Schulman et al. 2017, equation 7.
    """
    ratio = (log_p - old_log_p).exp()  # (6.11)
    clipped = ratio.clamp(1 - clip, 1 + clip)
    return -masked_mean(torch.minimum(ratio * advantages, clipped * advantages), mask)  # (6.12)


def value_loss(values: Tensor, old_values: Tensor, returns: Tensor, mask: Tensor, clip: float) -> Tensor:
    """Half the squared error of the values, clipped like the policy: no gain from going far from the old ones.

    Args:
        values: of the network in training, (B, T).
        old_values: when the texts were written, (B, T).
        returns: as `advantages` gives them, (B, T).
        mask: (B, T).
        clip: how far a value may go; infinite for no clipping.

    Source: Ziegler et al. 2019, code; not in Schulman et al. 2017.
    """
    clipped = old_values + (values - old_values).clamp(-clip, clip)
    return masked_mean(torch.maximum((values - returns) ** 2, (clipped - returns) ** 2), mask) / 2  # (6.13)


def kl(logits: Tensor, reference_logits: Tensor, mask: Tensor) -> Tensor:
    """Divergence in nats between the next-token distributions of two policies, summed over the tokens of a text.

    Its mean over texts of the first policy is the divergence between the two policies.

    Args:
        logits, reference_logits: before each token, (B, T, V).
        mask: (B, T).

    Returns:
        (B,).
    """
    log_p, reference = logits.log_softmax(dim=-1), reference_logits.log_softmax(dim=-1)
    return (log_p.exp() * (log_p - reference)).sum(dim=-1).masked_fill(~mask, 0).sum(dim=1)  # (6.16)

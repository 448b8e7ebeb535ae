"""What sequence models are trained on and judged by.

Letters: `B` batch, `T` tokens, `V` vocabulary.
"""

import torch.nn.functional as F
from torch import Tensor

from ditbook.data.tokenizer import PAD


def next_token_loss(logits: Tensor, targets: Tensor, smoothing: float = 0.0) -> Tensor:
    """Mean cross-entropy of the next token over all places that are not padding, in nats.

    Args:
        logits: (B, T, V).
        targets: the tokens that come next, (B, T).
        smoothing: share of the probability that is spread evenly over the vocabulary instead of the right token.

    Raises:
        ValueError: there is nothing but padding.

    Source: Szegedy et al. 2016, section 7, for label smoothing; Vaswani et al. 2017, section 5.4, with 0.1.
    """
    kept = targets != PAD
    if not kept.any():
        raise ValueError("all targets are padding: there is nothing to predict")
    log_p = F.log_softmax(logits[kept], dim=-1)  # (N, V)
    right = log_p.gather(1, targets[kept][:, None]).mean()
    return -(1 - smoothing) * right - smoothing * log_p.mean()  # (3.14)

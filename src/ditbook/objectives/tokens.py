"""Cross-entropy of tokens.

Letters: `B` batch, `T` tokens, `V` vocabulary.
"""

import torch.nn.functional as F
from torch import Tensor


def next_token_loss(logits: Tensor, targets: Tensor, smoothing: float = 0.0, pad: int = 0) -> Tensor:
    """Mean cross-entropy in nats over all places whose target is not `pad`. Its exponential is the perplexity (1.4).

    Args:
        logits: (B, T, V).
        targets: the right token of each place, (B, T): the next one, or in a masked language model the one that was
            masked, and `pad` at all other places.
        smoothing: fraction of the target probability that is spread evenly over the vocabulary, in [0, 1).
        pad: the target that does not count; it need not be a token of the vocabulary.

    Raises:
        ValueError: `smoothing` is out of its range, the shapes differ, or (on the CPU; elsewhere the loss is NaN) no
            target counts.

    Source: Szegedy et al. 2016, section 7, for label smoothing; Vaswani et al. 2017, section 5.4, with 0.1.
    """
    if not 0 <= smoothing < 1:
        raise ValueError(f"smoothing must be in [0, 1), not {smoothing}")
    if logits.shape[:-1] != targets.shape:
        raise ValueError(
            f"targets {tuple(targets.shape)} for logits {tuple(logits.shape)}; expected (B, T) for (B, T, V)"
        )
    kept = targets != pad
    if targets.device.type == "cpu" and not kept.any():
        raise ValueError("all targets are padding: there is nothing to predict")
    log_p = F.log_softmax(logits, dim=-1)  # (B, T, V)
    right = log_p.gather(-1, targets.masked_fill(~kept, 0)[..., None])[..., 0]
    loss = -(1 - smoothing) * right - smoothing * log_p.mean(dim=-1)  # (3.14)
    return loss.masked_fill(~kept, 0).sum() / kept.sum()  # (1.3)


def two_part_loss(logits: Tensor, targets: Tensor, text: Tensor, image: Tensor, text_weight: float = 1 / 8) -> Tensor:
    """Mean cross-entropy in nats of the text's tokens and of the image's, weighted.

    Args:
        logits: (B, T, V); −∞ where a token of the other part cannot follow.
        targets: the next token of each place, (B, T).
        text: True where the target counts as text, (B, T).
        image: True where the target counts as image, (B, T).
        text_weight: of the text; the rest is that of the image.

    Source: Ramesh et al. 2021 (DALL·E), section 2.2.
    """
    nats = F.cross_entropy(logits.flatten(0, 1), targets.flatten(), reduction="none").view(targets.shape)
    of_text, of_image = ((nats * part).sum() / part.sum() for part in (text, image))
    return text_weight * of_text + (1 - text_weight) * of_image  # (9.14)

"""Metrics of texts.

Letters: `B` batch, `T` tokens of the generated texts, `R` of the reference.
"""

import torch.nn.functional as F
from torch import Tensor


def exact_match(generated: Tensor, reference: Tensor, eos: int) -> Tensor:
    """Which texts equal the reference, token for token, up to their end.

    Args:
        generated: (B, T), the end token after each text; what follows it does not count.
        reference: (B, R), the same, padded on the right.
        eos: the end token.

    Returns:
        (B,) of booleans.
    """
    longest = max(generated.shape[1], reference.shape[1])
    sides = [F.pad(tokens, (0, longest - tokens.shape[1]), value=eos) for tokens in (generated, reference)]
    after_end = [(tokens == eos).long().cumsum(dim=1) > 0 for tokens in sides]
    ended = [tokens.masked_fill(over, eos) for tokens, over in zip(sides, after_end, strict=True)]
    return (ended[0] == ended[1]).all(dim=1)

"""BERT's two tasks: masked words, and whether one sentence follows another.

Letters: `B` batch, `T` tokens, `V` vocabulary, `N` sentences, `M` pairs of them.
Source: Devlin et al. 2019, section 3.1 and appendix A.1.
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from ditbook import rng
from ditbook.objectives.tokens import next_token_loss

IGNORED = -100  # label of a place that has no loss


def mask_words(
    tokens: Tensor,
    generator: torch.Generator,
    *,
    vocabulary: int,
    mask: int,
    special: Sequence[int],
    fraction: float = 0.15,
    parts: tuple[float, float, float] = (0.8, 0.1, 0.1),
) -> tuple[Tensor, Tensor]:
    """Choose tokens to be predicted, and hide most of them.

    Args:
        tokens: (B, T).
        generator: of three random numbers for each token.
        vocabulary: V, from which random tokens are drawn.
        mask: the mask token.
        special: tokens that are neither chosen nor drawn: padding, and those that stand at the ends of sentences.
        fraction: probability that a token is chosen.
        parts: of the chosen tokens, the fractions that become the mask token, become a random token, and stay.

    Returns:
        What the model reads, (B, T), and the labels, (B, T): the token itself where it was chosen, −100 elsewhere.

    Raises:
        ValueError: `fraction` is not in (0, 1], or `parts` are negative or do not sum to one.

    Source: Devlin et al. 2019, appendix A.1. Each token is chosen independently; the paper's code fixes the number of
    chosen tokens in each text.
    """
    if not 0 < fraction <= 1:
        raise ValueError(f"fraction must be in (0, 1], not {fraction}")
    if min(parts) < 0 or abs(sum(parts) - 1) > 1e-6:
        raise ValueError(f"parts {parts} must not be negative and must sum to one: mask, random, same")
    device = tokens.device
    chosen = rng.rand(tuple(tokens.shape), generator, device) < fraction
    for token in special:
        chosen &= tokens != token
    how = rng.rand(tuple(tokens.shape), generator, device)
    ordinary = torch.tensor([token for token in range(vocabulary) if token not in special], device=device)
    other = ordinary[rng.randint(len(ordinary), tuple(tokens.shape), generator, device)]
    hidden = torch.where(how < parts[0] + parts[1], other, tokens)
    hidden = torch.where(how < parts[0], mask, hidden)
    return torch.where(chosen, hidden, tokens), torch.where(chosen, tokens, IGNORED)  # (4.2)


def next_sentence_pairs(document: Tensor, count: int, generator: torch.Generator) -> tuple[Tensor, Tensor, Tensor]:
    """Pairs of sentences of which about half are neighbours.

    The first sentence is any that has a next one in its document. The second is that one, or with probability ½ a
    random one of all others: never the true next sentence, and never the first itself.

    Args:
        document: the document of each sentence, (N,), in the order of the text.
        count: M.
        generator: of the choices.

    Returns:
        The index of the first sentence, of the second, and the label, (M,) each: 1 for a random second sentence.

    Raises:
        ValueError: fewer than three sentences, or no two neighbours.
    """
    n, device = len(document), document.device
    starts = (document[1:] == document[:-1]).nonzero()[:, 0]
    if n < 3 or len(starts) == 0:
        raise ValueError(f"{n} sentences with {len(starts)} neighbours; three and one are needed at least")
    first = starts[rng.randint(len(starts), (count,), generator, device)]
    label = rng.randint(2, (count,), generator, device)
    other = (first + 2 + rng.randint(n - 2, (count,), generator, device)) % n  # all but `first` and the one after it
    return first, torch.where(label == 1, other, first + 1), label


def pretraining_loss(words: Tensor, sentences: Tensor, labels: Tensor, random: Tensor) -> Tensor:
    """Mean cross-entropy of the chosen words plus that of the pairs of sentences, in nats.

    Args:
        words: logits, (B, T, V).
        sentences: logits, (B, 2).
        labels: (B, T), as `mask_words` gives them.
        random: (B,), 1 where the second sentence is a random one.

    Source: Devlin et al. 2019, appendix A.2.
    """
    return next_token_loss(words, labels, pad=IGNORED) + F.cross_entropy(sentences, random)  # (4.4), (4.6)

"""Writing with any model that predicts the next token: greedily, or keeping several sentences in mind.

A model gives a `state`, a dictionary of tensors with the batch as first dimension, and a function `step`, which takes
the last tokens (B,) and the state to logits (B, V) and the next state. Letters: `B` batch, `V` vocabulary, `K` beams.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

State = Any  # dictionaries, lists and tuples of tensors, the batch first, and of caches that `select` rows
Step = Callable[[Tensor, State], tuple[Tensor, State]]


def _rows(state: State, rows: Tensor) -> State:
    """The given rows of every tensor of a state."""
    if isinstance(state, Tensor):
        return state[rows]
    if isinstance(state, dict):
        return {name: _rows(value, rows) for name, value in state.items()}
    if isinstance(state, list | tuple):
        return type(state)(_rows(value, rows) for value in state)
    return state.select(rows)


@torch.no_grad()
def greedy(step: Step, state: State, *, bos: int, eos: int, max_length: int) -> Tensor:
    """Take the most probable token at each place.

    Args:
        step, state: the model.
        bos: the token that begins every sentence; it is not part of the result.
        eos: the token that ends a sentence; what follows it is filled with it.
        max_length: tokens of the longest sentence, its end included.

    Returns:
        (B, T), T at most `max_length`.
    """
    batch = len(next(iter(state.values())))
    token = torch.full((batch,), bos, device=next(iter(state.values())).device)
    ended = torch.zeros_like(token, dtype=torch.bool)
    tokens: list[Tensor] = []
    while len(tokens) < max_length and not ended.all():
        logits, state = step(token, state)
        token = torch.where(ended, eos, logits.argmax(dim=-1))
        ended = ended | (token == eos)
        tokens.append(token)
    return torch.stack(tokens, dim=1)


@torch.no_grad()
def beam(
    step: Step, state: State, *, bos: int, eos: int, max_length: int, width: int, length_penalty: float = 0.0
) -> tuple[Tensor, Tensor]:
    """Keep the `width` most probable beginnings, and return the best sentence found.

    Args:
        step, state: the model.
        bos, eos, max_length: as for `greedy`.
        width: K; with 1 this is greedy decoding.
        length_penalty: a sentence of n tokens is compared by its log-probability over nᵃ, with a this number; 0 prefers
            what is most probable, which favours short sentences.

    Returns:
        The sentences (B, T), filled up with `eos`, and their log-probabilities (B,).

    Raises:
        ValueError: `width` is not positive.

    Source: Sutskever et al. 2014, section 3.2.
    """
    if width < 1:
        raise ValueError(f"a beam is at least 1 wide, not {width}")
    batch, device = len(next(iter(state.values()))), next(iter(state.values())).device
    state = _rows(state, torch.arange(batch, device=device).repeat_interleave(width))  # (B·K, …)
    scores = torch.full((batch, width), -torch.inf, device=device)
    scores[:, 0] = 0  # at the start all beams are the same
    tokens = torch.full((batch, width, 1), bos, device=device)
    ended = torch.zeros(batch, width, dtype=torch.bool, device=device)
    first = torch.arange(batch, device=device)[:, None] * width  # (B, 1), the row of each sample's first beam
    while tokens.shape[2] <= max_length and not ended.all():
        logits, state = step(tokens[:, :, -1].flatten(), state)
        log_p = logits.log_softmax(dim=-1).view(batch, width, -1)  # (B, K, V)
        stay = torch.full_like(log_p, -torch.inf)
        stay[:, :, eos] = 0
        total = scores[:, :, None] + torch.where(ended[:, :, None], stay, log_p)  # (2.8)
        lengths = (tokens[:, :, 1:] != eos).sum(dim=2) + 1  # words, and the next one or the end
        ranked = (total / lengths[:, :, None] ** length_penalty).flatten(1).topk(width).indices  # (B, K)
        scores = total.flatten(1).gather(1, ranked)
        beams, token = ranked // log_p.shape[2], ranked % log_p.shape[2]
        tokens = torch.cat([tokens[torch.arange(batch, device=device)[:, None], beams], token[:, :, None]], dim=2)
        ended = token == eos
        state = _rows(state, (first + beams).flatten())
    lengths = (tokens[:, :, 1:] != eos).sum(dim=2) + ended
    best = (scores / lengths**length_penalty).argmax(dim=1)
    rows = torch.arange(batch, device=device)
    return tokens[rows, best, 1:], scores[rows, best]

"""Writing text with any model that predicts the next token: greedy decoding, beam search, sampling.

A model gives a state and a function `step`, from the last tokens (B,) and the state to logits (B, V) and the next
state. A state is any nesting of dictionaries, lists and tuples of tensors with the batch first, and of objects with
`select(rows)`, such as a KV cache. It is copied before the first step: a cache that grows in place does not grow for
the caller, who can write from one state many times.

Letters: `B` batch, `T` tokens, `V` vocabulary, `K` width of the beam.
"""

import math
from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from ditbook import rng
from ditbook.layers.autoregressive import State

Step = Callable[[Tensor, State], tuple[Tensor, State]]
CHECK_EVERY = 16  # tokens after which an accelerator is waited for, to see whether all texts have ended


def select(state: State, rows: Tensor) -> State:
    """A state with the given rows of the batch, in their order; each may come more than once, or never.

    Args:
        state: of B texts.
        rows: integers from 0 to B − 1, (N,).

    Raises:
        ValueError: a part of the state is neither a tensor nor a container, and has no `select`.
    """
    if isinstance(state, Tensor):
        return state[rows]
    if hasattr(state, "select"):
        return state.select(rows)
    if isinstance(state, dict):
        return {name: select(part, rows) for name, part in state.items()}
    if isinstance(state, list | tuple):
        return type(state)(select(part, rows) for part in state)
    raise ValueError(f"a state holds tensors, dict, list, tuple and objects with select(rows), not {type(state)}")


@torch.no_grad()
def greedy(step: Step, state: State, *, first: int | Tensor, max_length: int, eos: int | None = None) -> Tensor:
    """Take the most probable token at each place.

    Args:
        step, state: the model, and its state before `first`.
        first: what the first step reads, such as the begin token, or the last token of each prompt, (B,); it is not
            part of the result.
        max_length: tokens of the longest text, its end included; the model must be able to read as many.
        eos: the token that ends a text; what follows it is filled with it. Without it all have `max_length` tokens.

    Returns:
        (B, T), T the length of the longest text.

    Raises:
        ValueError: `max_length` is not positive, or neither `first` nor the state gives the batch size.
    """
    token, state = _begin(state, first, max_length)
    return _write(step, state, token, lambda logits, place: logits.argmax(dim=-1), max_length, eos)


@torch.no_grad()
def sample(
    step: Step,
    state: State,
    *,
    first: int | Tensor,
    max_length: int,
    generator: torch.Generator,
    eos: int | None = None,
    temperature: float = 1.0,
    top_k: int | None = None,
    top_p: float | None = None,
) -> Tensor:
    """Draw each token from the model's probabilities, or from what `temperature`, `top_k` and `top_p` make of them.

    One seed gives the same text on every device, up to rounding of the logits, and leaves the generator in the same
    state wherever the texts end.

    Args:
        step, state, first, max_length, eos: as for `greedy`.
        generator: of the `max_length` · B uniform numbers.
        temperature, top_k, top_p: as for `probabilities`.

    Returns:
        (B, T), T the length of the longest text.

    Raises:
        ValueError: as `greedy` and `probabilities`.
    """
    token, state = _begin(state, first, max_length)
    uniform = rng.rand((max_length, len(token)), generator, token.device)

    def choose(logits: Tensor, place: int) -> Tensor:
        p = probabilities(logits, temperature=temperature, top_k=top_k, top_p=top_p)
        return _invert(p, uniform[place])

    return _write(step, state, token, choose, max_length, eos)


def probabilities(
    logits: Tensor, *, temperature: float = 1.0, top_k: int | None = None, top_p: float | None = None
) -> Tensor:
    """Probabilities of the next token: softmax(logits / temperature), cut to the `top_k` best, then to the nucleus.

    After each cut what is left is divided by its sum. Of tokens with equal probability the lower index is kept first.

    Args:
        logits: (..., V).
        temperature: positive; towards 0 all probability goes to the most probable token.
        top_k: how many of the most probable tokens are kept, all if there are fewer.
        top_p: the nucleus is the smallest set of most probable tokens whose probabilities sum to `top_p` or more, in
            (0, 1]; with 1 all are kept.

    Returns:
        (..., V), float32.

    Raises:
        ValueError: a value out of these ranges.

    Source: Fan et al. 2018, section 5.4, for `top_k`; Holtzman et al. 2020, section 3.1, for `top_p`, and section 3.3
    for the temperature.
    """
    if not 0 < temperature < math.inf:
        raise ValueError(f"temperature must be positive and finite, not {temperature}; for temperature 0 call greedy")
    if top_k is not None and top_k < 1:
        raise ValueError(f"top_k must be at least 1, not {top_k}")
    if top_p is not None and not 0 < top_p <= 1:
        raise ValueError(f"top_p must be above 0 and at most 1, not {top_p}")
    highest = logits.amax(dim=-1, keepdim=True)  # subtracted first, so that a small temperature does not overflow
    p = ((logits - highest).float() / temperature).softmax(dim=-1)
    if top_k is None and top_p is None:
        return p
    p, order = p.sort(dim=-1, descending=True, stable=True)
    if top_k is not None:
        p = p.masked_fill(torch.arange(p.shape[-1], device=p.device) >= top_k, 0)
        p = p / p.sum(dim=-1, keepdim=True)
    if top_p is not None and top_p < 1:
        before = p.cumsum(dim=-1) - p
        p = p.masked_fill(before >= top_p, 0)
        p = p / p.sum(dim=-1, keepdim=True)  # (5.8)
    return torch.zeros_like(p).scatter(-1, order, p)


@torch.no_grad()
def beam(
    step: Step,
    state: State,
    *,
    first: int | Tensor,
    max_length: int,
    eos: int,
    width: int,
    length_penalty: float = 0.0,
) -> tuple[Tensor, Tensor]:
    """Keep the `width` most probable beginnings, and return the best text found.

    Args:
        step, state, first, max_length, eos: as for `greedy`.
        width: K; with 1 this is greedy decoding.
        length_penalty: a text of n tokens is compared by its log-probability over nᵃ, with a this number; 0 prefers
            what is most probable, which favors short texts.

    Returns:
        The texts (B, T), filled up with `eos`, and their log-probabilities (B,).

    Raises:
        ValueError: `width` is not positive, or as `greedy`.

    Source: Sutskever et al. 2014, section 3.2.
    """
    if width < 1:
        raise ValueError(f"a beam is at least 1 wide, not {width}")
    token, state = _begin(state, first, max_length, width)  # (B·K,)
    tokens = token.view(-1, width, 1)  # (B, K, T)
    batch, device = len(tokens), tokens.device
    scores = torch.full((batch, width), -torch.inf, device=device)
    scores[:, 0] = 0  # at the start all beams are the same
    ended = torch.zeros(batch, width, dtype=torch.bool, device=device)
    rows = torch.arange(batch, device=device)
    for place in range(max_length):
        logits, state = step(tokens[:, :, -1].flatten(), state)
        log_p = logits.log_softmax(dim=-1).view(batch, width, -1)  # (B, K, V)
        stay = torch.full_like(log_p, -torch.inf)
        stay[:, :, eos] = 0
        total = scores[:, :, None] + torch.where(ended[:, :, None], stay, log_p)  # (2.8)
        lengths = (tokens[:, :, 1:] != eos).sum(dim=2) + 1  # the next token, or the end, counted
        ranked = (total / lengths[:, :, None] ** length_penalty).flatten(1).topk(width).indices  # (B, K)
        scores = total.flatten(1).gather(1, ranked)
        beams, token = ranked // log_p.shape[2], ranked % log_p.shape[2]
        tokens = torch.cat([tokens[rows[:, None], beams], token[:, :, None]], dim=2)
        ended = token == eos
        if _all_ended(ended, place):
            break
        state = select(state, (rows[:, None] * width + beams).flatten())
    lengths = (tokens[:, :, 1:] != eos).sum(dim=2) + ended
    best = (scores / lengths**length_penalty).argmax(dim=1)
    return _trim(tokens[rows, best, 1:], eos), scores[rows, best]


def _begin(state: State, first: int | Tensor, max_length: int, copies: int = 1) -> tuple[Tensor, State]:
    """The first tokens (B · copies,) and a copy of the state, the copies of a text one after another."""
    if max_length < 1:
        raise ValueError(f"max_length must be at least 1, not {max_length}")
    if isinstance(first, int):
        tensor = next(_tensors(state), None)
        if tensor is None:
            raise ValueError("the state holds no tensor that gives the batch size; pass `first` as a tensor (B,)")
        first = torch.full((len(tensor),), first, device=tensor.device)
    rows = torch.arange(len(first), device=first.device).repeat_interleave(copies)
    return first[rows], select(state, rows)


def _tensors(state: State) -> Iterator[Tensor]:
    if isinstance(state, Tensor):
        yield state
    elif isinstance(state, dict | list | tuple):
        for part in state.values() if isinstance(state, dict) else state:
            yield from _tensors(part)


def _write(
    step: Step,
    state: State,
    token: Tensor,
    choose: Callable[[Tensor, int], Tensor],
    max_length: int,
    eos: int | None,
) -> Tensor:
    """`choose(logits, place)` each next token until all texts have ended: (B, T)."""
    ended = torch.zeros_like(token, dtype=torch.bool)
    tokens: list[Tensor] = []
    for place in range(max_length):
        logits, state = step(token, state)
        token = choose(logits, place)
        if eos is not None:
            token = torch.where(ended, eos, token)
            ended = ended | (token == eos)
        tokens.append(token)
        if _all_ended(ended, place):
            break
    return _trim(torch.stack(tokens, dim=1), eos)


def _invert(p: Tensor, uniform: Tensor) -> Tensor:
    """Tokens (B,) from probabilities (B, V) and uniform numbers (B,) in [0, 1), by the cumulative distribution."""
    reached = p.cumsum(dim=-1).masked_fill(p == 0, 0)  # what has no probability is never taken, whatever the rounding
    needed = (1 - uniform[:, None]) * reached.amax(dim=-1, keepdim=True)  # above 0
    return (reached >= needed).int().argmax(dim=-1)


def _all_ended(ended: Tensor, place: int) -> bool:
    """Whether all texts have ended. Reading this makes the host wait for an accelerator: there only now and then."""
    if ended.device.type == "meta" or (ended.device.type != "cpu" and (place + 1) % CHECK_EVERY):
        return False
    return bool(ended.all())


def _trim(tokens: Tensor, eos: int | None) -> Tensor:
    """Without the last columns in which all texts had ended before: (B, T') → (B, T)."""
    if eos is None or tokens.device.type == "meta":
        return tokens
    return tokens[:, : 1 + int((tokens != eos).any(dim=0).sum())]

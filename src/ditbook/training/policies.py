"""A GPT as a policy, which reads a prompt and writes a text, and a scorer as the judge of the two.

Prompts are padded on the left and end in the begin token; texts are padded on the right, after their end token.

Letters: `B` batch, `P` tokens of a prompt, `T` tokens of a text, `V` vocabulary.
"""

import torch
from torch import Tensor

from ditbook import generation
from ditbook.data.tokenizer import EOS, PAD
from ditbook.models.gpt import GPT, GPTScorer
from ditbook.objectives.policy import masked_mean
from ditbook.objectives.preference import log_probs
from ditbook.training.loop import Batch


def written(texts: Tensor) -> Tensor:
    """True for each token up to the end token, itself among them: (B, T) → (B, T). Without one the text was cut off."""
    ends = texts == EOS
    return ends.cumsum(dim=1) - ends.int() == 0


def write(policy: GPT, prompts: Tensor, longest: int, generator: torch.Generator) -> Tensor:
    """Sample a text for each prompt from the policy as it is: (B, P) → (B, longest).

    No temperature and no top-k: with either the texts would not be those of the policy whose probabilities are used.

    Args:
        longest: tokens of a text at most, T; a longer one is cut off, and has no end token.
        generator: of T · B uniform numbers.
    """
    state = policy.start(prompts[:, :-1], prompts[:, :-1] != PAD)
    tokens = generation.sample(
        policy.step, state, first=prompts[:, -1], max_length=longest, eos=EOS, generator=generator
    )
    texts = tokens.new_full((len(tokens), longest), PAD)
    texts[:, : tokens.shape[1]] = tokens.masked_fill(~written(tokens), PAD)
    return texts


def logits(policy: GPT, prompts: Tensor, texts: Tensor) -> Tensor:
    """What the policy predicts before each token of the texts: (B, P) and (B, T) → (B, T, V)."""
    x = policy.encode(*_joined(prompts, texts[:, :-1]))
    return policy.logits(x[:, prompts.shape[1] - 1 :])


def token_log_probs(policy: GPT, prompts: Tensor, texts: Tensor) -> Tensor:
    """Log-probability of each token of the texts, 0 for padding: (B, P) and (B, T) → (B, T)."""
    return log_probs(logits(policy, prompts, texts), texts, written(texts))


def imitation_loss(policy: GPT, batch: Batch) -> Tensor:
    """Mean cross-entropy in nats of the tokens of "texts" after "prompts"."""
    prompts, texts = batch["prompts"], batch["texts"]
    return -masked_mean(token_log_probs(policy, prompts, texts), written(texts))


def values(scorer: GPTScorer, prompts: Tensor, texts: Tensor) -> Tensor:
    """What a value network expects before each token of the texts: (B, P) and (B, T) → (B, T)."""
    return scorer(*_joined(prompts, texts[:, :-1]))[:, prompts.shape[1] - 1 :]


def scores(scorer: GPTScorer, prompts: Tensor, texts: Tensor) -> Tensor:
    """The number after the last token of each text: (B, P) and (B, T) → (B,)."""
    last = written(texts).sum(dim=1) - 1
    return scorer(*_joined(prompts, texts))[:, prompts.shape[1] :].gather(1, last[:, None])[:, 0]


def _joined(prompts: Tensor, texts: Tensor) -> tuple[Tensor, Tensor]:
    """Prompt and text in one row, and the mask that leaves out the padding before the prompt.

    What pads a text stands after all that is read, where the causal mask hides it.
    """
    tokens = torch.cat([prompts, texts], dim=1)
    return tokens, torch.cat([prompts != PAD, torch.ones_like(texts, dtype=torch.bool)], dim=1)

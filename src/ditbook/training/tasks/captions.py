"""Translation of English captions: to French, or to a summary."""

from dataclasses import dataclass

from torch import Tensor

from ditbook import generation
from ditbook.data import captions, tokenizer
from ditbook.layers.checks import check_range
from ditbook.metrics import text
from ditbook.models.seq2seq import Seq2Seq
from ditbook.models.transformer import Transformer
from ditbook.objectives.tokens import next_token_loss
from ditbook.training.loop import Batch, Context
from ditbook.training.tasks import Task

LONGEST = 50  # tokens that a caption may take


@dataclass(frozen=True, kw_only=True)
class Captions(Task[Seq2Seq | Transformer]):
    """Predict each token of the target from the source and the tokens before it."""

    writes: str  # "french" or "summary"
    label_smoothing: float

    splits = False  # a mean over the words, of which each part of a batch has another number

    def __post_init__(self) -> None:
        super().__post_init__()
        check_range(self, "label_smoothing", high=1)

    def data(self) -> Batch:
        """50,000 captions of the train split."""
        return caption_tokens(self.writes, "train", 50_000, seed=0)

    def loss(self, model: Seq2Seq | Transformer, batch: Batch, context: Context) -> Tensor:
        """Cross-entropy of the next token."""
        source, target = batch["source"], batch["target"]
        return next_token_loss(model(source, target[:, :-1]), target[:, 1:], self.label_smoothing)

    def evaluate(self, model: Seq2Seq | Transformer) -> dict[str, float]:
        """Fraction of held-out captions that greedy decoding translates without a fault."""
        batch = caption_tokens(self.writes, "validation", 2000, seed=1)
        state = model.start(batch["source"])
        written = generation.greedy(model.step, state, first=tokenizer.BOS, eos=tokenizer.EOS, max_length=LONGEST)
        right = text.exact_match(written, batch["target"][:, 1:], tokenizer.EOS)
        return {"exact match on 2,000 held-out scenes": round(right.double().mean().item(), 4)}


def caption_tokens(writes: str, split: str, size: int, seed: int) -> Batch:
    """Captions as tokens: English `source` (N, S), and `target` (N, T) in another language, with begin and end."""
    rows = captions.load(split, size, seed)
    english, other = captions.tokenizer("english"), captions.tokenizer(writes)
    return {
        "source": tokenizer.batch([english.encode(caption) for caption in rows["caption"]]),
        "target": tokenizer.batch([other.encode(caption) for caption in rows[writes]], bos=True, eos=True),
    }

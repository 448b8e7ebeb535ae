"""Timesteps, labels, texts and vectors that are not one for each image: a ValueError that names the shapes."""

import pytest
import torch

from ditbook.layers.embeddings import LabelEmbedding, TimestepEmbedding, timestep_embedding
from ditbook.models.clip import CLIP, CLIPConfig
from ditbook.models.dit import BLOCKS, DiT, DiTConfig
from ditbook.models.gpt import GPT, GPTConfig, GPTScorer
from ditbook.models.prior import AutoregressivePrior, AutoregressivePriorConfig, DiffusionPrior, DiffusionPriorConfig
from ditbook.models.seq2seq import Seq2Seq, Seq2SeqConfig
from ditbook.models.text_dit import BLOCKS as TEXT_BLOCKS
from ditbook.models.text_dit import TextDiT, TextDiTConfig
from ditbook.models.transformer import Transformer, TransformerConfig
from ditbook.models.unclip import UnCLIPDecoder, UnCLIPDecoderConfig
from ditbook.models.unet import UNet, UNetConfig, Upsampler, UpsamplerConfig

B = 4
X, T, Y = torch.zeros(B, 1, 8, 8), torch.arange(B), torch.arange(B) % 3
WORDS = torch.tensor([[1, 5, 2, 0]]).expand(B, -1)
SMALL = {"width": 16, "depth": 1, "heads": 2}
VECTORS = torch.eye(8)[:B]
TEXTS = {"joint": 8, "vocabulary": 9, "context": 5}

# model, and its inputs by name, each right
CASES = {
    **{
        f"dit {block}": (
            DiT(DiTConfig(size=8, channels=1, num_classes=3, block=block, **SMALL)),
            {"x": X, "t": T, "y": Y},
        )
        for block in BLOCKS
    },
    **{
        f"text-dit {block}": (
            TextDiT(TextDiTConfig(channels=1, vocabulary=9, num_classes=3, text_width=16, block=block, **SMALL)),
            {"x": X, "t": T, "tokens": WORDS, "y": Y},
        )
        for block in TEXT_BLOCKS
    },
    "unet": (UNet(UNetConfig(width=8)), {"x": X, "t": T}),
    "upsampler": (Upsampler(UpsamplerConfig(width=8)), {"x": X, "t": T, "low": X[:, :, :4, :4], "level": T}),
    "unclip": (
        UnCLIPDecoder(UnCLIPDecoderConfig(channels=1, joint=8, **SMALL)),
        {"x": X, "t": T, "embedding": VECTORS},
    ),
    "diffusion prior": (
        DiffusionPrior(DiffusionPriorConfig(**TEXTS, **SMALL)),
        {"x": VECTORS, "t": T, "tokens": WORDS, "text": VECTORS},
    ),
    "autoregressive prior": (
        AutoregressivePrior(AutoregressivePriorConfig(**TEXTS, **SMALL, components=2, values=4, dots=3)),
        {"tokens": WORDS, "text": VECTORS, "codes": torch.full((B, 1), 4)},
    ),
    "transformer": (Transformer(TransformerConfig(source=9, target=9, **SMALL)), {"source": WORDS, "target": WORDS}),
    "seq2seq": (Seq2Seq(Seq2SeqConfig(source=9, target=9, width=8)), {"source": WORDS, "target": WORDS}),
    "gpt": (GPT(GPTConfig(vocabulary=9, longest=8, **SMALL)), {"tokens": WORDS, "mask": WORDS > 0}),
    "gpt scorer": (GPTScorer(GPTConfig(vocabulary=9, longest=8, **SMALL)), {"tokens": WORDS, "mask": WORDS > 0}),
    "timesteps": (TimestepEmbedding(8), {"t": T}),
    "labels": (LabelEmbedding(3, 8), {"y": Y}),
}


def wrong(value):
    """The same for one sample, for fewer samples, and with a dimension less or more."""
    return [value[:1], value[:3], value[0], value[:, None] if value.ndim < 2 else value[None]]


@pytest.mark.parametrize("case", CASES)
def test_what_is_not_one_for_each_image_is_refused(case):
    model, inputs = CASES[case]
    model(*inputs.values())
    for name, value in inputs.items():
        for other in wrong(value):
            if len(inputs) == 1 and other.ndim == value.ndim:
                continue  # a smaller batch
            with pytest.raises(ValueError, match=r"\(|images|classes"):  # noqa: PT012
                model(*(inputs | {name: other}).values())
                pytest.fail(f"{case} takes {name} of shape {tuple(other.shape)}")


def test_labels_are_whole_numbers():
    for y in (Y.float(), Y > 0, Y.to(torch.uint8)):
        with pytest.raises(ValueError, match=r"labels of shape \(4,\) and type .*; expected int64 or int32"):
            LabelEmbedding(3, 8)(y)


def test_ends_of_texts():
    sizes = {"size": 8, "patch": 4, "vocabulary": 9, "context": 5, "joint": 8, "text_width": 8, "text_heads": 2}
    model = CLIP(CLIPConfig(width=8, depth=1, heads=2, text_depth=1, **sizes))
    model.encode_text(WORDS, torch.full((B,), 2))
    for end in (torch.tensor([2]), torch.tensor(2), torch.full((B, 1), 2)):
        with pytest.raises(ValueError, match=r"ends of shape \(.*\); this model takes one for each sample: \(4,\)"):
            model.encode_text(WORDS, end)


def test_timesteps_of_the_sinusoid():
    for t in (torch.tensor(3), T[:, None]):
        with pytest.raises(ValueError, match=r"timesteps of shape .*; expected one for each image: \(B,\)"):
            timestep_embedding(t, 8)

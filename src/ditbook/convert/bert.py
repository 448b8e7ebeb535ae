"""BERT weights in the layout of transformers' BertForPreTraining."""

import re
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from ditbook.convert.keys import check, plain, require
from ditbook.models.bert import BERT, BERTConfig

OUTSIDE = {  # ours → theirs
    "words": "bert.embeddings.word_embeddings",
    "positions": "bert.embeddings.position_embeddings",
    "segments": "bert.embeddings.token_type_embeddings",
    "embed_norm": "bert.embeddings.LayerNorm",
    "pooler": "bert.pooler.dense",
    "transform": "cls.predictions.transform.dense",
    "transform_norm": "cls.predictions.transform.LayerNorm",
    "word_bias": "cls.predictions.bias",
    "next_sentence": "cls.seq_relationship",
}
INSIDE = {  # of a layer
    "attention.proj": "attention.output.dense",
    "norms.0": "attention.output.LayerNorm",
    "mlp.fc1": "intermediate.dense",
    "mlp.fc2": "output.dense",
    "norms.1": "output.LayerNorm",
}
QKV = ("query", "key", "value")
# Files hold besides: the tied matrix and its bias a second time, and a list of positions.
REPEATED = ("cls.predictions.decoder.weight", "cls.predictions.decoder.bias", "bert.embeddings.position_ids")


def config_from_transformers(config: Mapping[str, Any]) -> BERTConfig:
    """Our config from the `config.json` beside the weights.

    Raises:
        ValueError: a size is missing, or the file describes a model that is computed in another way.
    """
    require(config, "vocab_size", "max_position_embeddings", "type_vocab_size", "hidden_size")
    require(config, "num_hidden_layers", "num_attention_heads")
    ours = BERTConfig(
        vocabulary=config["vocab_size"],
        positions=config["max_position_embeddings"],
        segments=config["type_vocab_size"],
        width=config["hidden_size"],
        depth=config["num_hidden_layers"],
        heads=config["num_attention_heads"],
        pad=config.get("pad_token_id", 0),
    )
    fixed = {"hidden_act": "gelu", "layer_norm_eps": 1e-12, "intermediate_size": 4 * ours.width}
    for key, value in fixed.items():
        if config.get(key, value) != value:
            raise ValueError(f"{key} is {config[key]}; this model computes with {value} alone")
    return ours


def to_transformers(model: BERT) -> dict[str, Tensor]:
    """Write the layout of transformers; the word embedding, which is also the output matrix, stands there once."""
    state = {}
    for key, value in model.state_dict().items():
        if match := re.fullmatch(r"layers\.(\d+)\.attention\.qkv\.(weight|bias)", key):
            for name, part in zip(QKV, value.chunk(3), strict=True):
                state[f"bert.encoder.layer.{match[1]}.attention.self.{name}.{match[2]}"] = part
        else:
            state[_name(key)] = value
    return state


def load_transformers(model: BERT, state: Mapping[str, Any]) -> None:
    """Load a state dict in the layout of transformers into `model`, in place.

    The older names of a norm's parameters, gamma and beta, are understood.

    Raises:
        ValueError: names the first missing, unexpected or misshapen key.
    """
    modern = {re.sub(r"gamma$", "weight", re.sub(r"beta$", "bias", key)): v for key, v in plain(state).items()}
    found = {key: value for key, value in modern.items() if key not in REPEATED}
    check(found, to_transformers(model), "transformers")
    ours = {}
    for key in model.state_dict():
        if match := re.fullmatch(r"layers\.(\d+)\.attention\.qkv\.(weight|bias)", key):
            where = f"bert.encoder.layer.{match[1]}.attention.self"
            ours[key] = torch.cat([found[f"{where}.{name}.{match[2]}"] for name in QKV]).float()
        else:
            ours[key] = found[_name(key)].float()
    model.load_state_dict(ours)


def _name(ours: str) -> str:
    if match := re.fullmatch(r"layers\.(\d+)\.(.+)\.(weight|bias)", ours):
        return f"bert.encoder.layer.{match[1]}.{INSIDE[match[2]]}.{match[3]}"
    name, dot, kind = ours.partition(".")
    return OUTSIDE[name] + dot + kind

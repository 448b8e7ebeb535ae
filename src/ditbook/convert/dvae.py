"""Discrete autoencoder weights in the layout that OpenAI published with DALL·E: encoder and decoder apart."""

import re
from collections.abc import Mapping
from typing import Any

from torch import Tensor

from ditbook.convert.keys import check, plain
from ditbook.models.dvae import DVAE


def _openai_name(ours: str) -> str:
    """The name of a parameter of ours, without "encoder." or "decoder."; groups, blocks, convolutions count from 1."""
    ours = re.sub(r"^conv_in\.", "blocks.input.", ours)
    ours = re.sub(r"^conv_out\.", "blocks.output.conv.", ours)
    ours = re.sub(r"^groups\.(\d+)\.(\d+)\.", lambda m: f"blocks.group_{int(m[1]) + 1}.block_{int(m[2]) + 1}.", ours)
    ours = re.sub(r"\.convs\.(\d+)\.", lambda m: f".res_path.conv_{int(m[1]) + 1}.", ours)
    return ours.replace(".shortcut.", ".id_path.").replace(".weight", ".w").replace(".bias", ".b")


def to_openai(model: DVAE) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Write the layout of the published encoder and that of the published decoder.

    Raises:
        ValueError: a model with vector quantization, whose codebook has no place there.
    """
    if model.quantizer is not None:
        raise ValueError("a model with code_width has a codebook apart; the published layout has none")
    encoder, decoder = (
        {_openai_name(key): value for key, value in part.state_dict().items()}
        for part in (model.encoder, model.decoder)
    )
    return encoder, decoder


def load_openai(model: DVAE, encoder: Mapping[str, Any], decoder: Mapping[str, Any]) -> None:
    """Load the state dicts of a published encoder and decoder into `model`, in place.

    Raises:
        ValueError: as `to_openai`; or names the first missing, unexpected or misshapen key.
    """
    for part, state, wanted in zip((model.encoder, model.decoder), (encoder, decoder), to_openai(model), strict=True):
        state = plain(state)
        check(state, wanted, "OpenAI")
        part.load_state_dict({key: state[_openai_name(key)].float() for key in part.state_dict()})

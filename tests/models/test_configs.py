"""Every model's config, with each field wrong in turn: a ValueError that names the field."""

import dataclasses
from importlib import import_module

import pytest

from ditbook import weights

CONFIGS = {
    **{name: weights.FAMILIES[name] for name in weights.FAMILIES if name not in ("actor-critic", "gpt-scorer")},
    "rnn": ("ditbook.models.rnn", "LanguageModel"),
    "vit": ("ditbook.models.vit", "ViT"),
}
NEEDED = {  # fields without a default
    "LanguageModel": {"vocabulary": 9},
    "Seq2Seq": {"source": 9, "target": 9},
    "Transformer": {"source": 9, "target": 9},
}
WRONG = {
    "int": (0, -1, 1.5, 2.0, True, "2", None, float("nan"), [2]),
    "float": (-0.5, True, "0.1", None, float("nan"), float("inf"), [0.1]),
    "bool": (0, 1, "false", None),
    "str": ("film", None, 1, ["adaLN"]),
    "tuple": ((), (0, 1), (8, -8), (8.0,), (True,), ("8",), 8, None, "88"),
}
MAY_BE_ZERO = (("BERT", "pad"), ("Seq2Seq", "pad"), ("Transformer", "pad"), ("TextDiT", "num_classes"))


def made(module, name, **fields):
    return getattr(import_module(module), f"{name}Config")(**{**NEEDED.get(name, {}), **fields})


@pytest.mark.parametrize(("module", "name"), CONFIGS.values(), ids=CONFIGS)
def test_a_wrong_value_of_any_field_is_refused_by_name(module, name):
    for field in dataclasses.fields(made(module, name)):
        kind = getattr(field.type, "__name__", str(field.type)).split(" ")[0]
        for value in WRONG[kind]:
            zero = type(value) is int and value == 0 and (name, field.name) in MAY_BE_ZERO
            if zero or (value is None and "None" in str(field.type)):
                continue
            with pytest.raises(ValueError, match=field.name):  # noqa: PT012
                made(module, name, **{field.name: value})
                pytest.fail(f"{name} takes {field.name}={value!r}")


@pytest.mark.parametrize(
    ("module", "name", "fields", "field"),
    [
        ("dit", "DiT", {"size": 9}, "size"),
        ("dit", "DiT", {"heads": 7}, "heads"),
        ("dit", "DiT", {"width": 18, "heads": 2}, "width"),
        ("text_dit", "TextDiT", {"text_width": 126}, "text_width"),
        ("text_dit", "TextDiT", {"dropout": 1.1}, "dropout"),
        ("dalle", "DALLE", {"heads": 7}, "heads"),
        ("dalle", "DALLE", {"std": 0.0}, "std"),
        ("gpt", "GPT", {"heads": 7}, "heads"),
        ("bert", "BERT", {"heads": 7}, "heads"),
        ("bert", "BERT", {"pad": 30_522}, "pad"),
        ("clip", "CLIP", {"text_heads": 7}, "text_heads"),
        ("vit", "ViT", {"patch": 15}, "patch"),
        ("unet", "UNet", {"width": 12}, "width"),
        ("unet", "Upsampler", {"low": 3}, "low"),
        ("autoencoder", "Autoencoder", {"widths": (33,)}, "widths"),
        ("autoencoder", "Autoencoder", {"scale": 0}, "scale"),
        ("dvae", "DVAE", {"width": 6}, "width"),
        ("dvae", "DVAE", {"gain": 0.0}, "gain"),
        ("prior", "DiffusionPrior", {"heads": 7}, "heads"),
        ("prior", "AutoregressivePrior", {"components": 769}, "components"),
        ("transformer", "Transformer", {"width": 3, "heads": 3}, "width"),
        ("unclip", "UnCLIPDecoder", {"patch": 3}, "patch"),
    ],
)
def test_sizes_that_do_not_fit_one_another(module, name, fields, field):
    with pytest.raises(ValueError, match=field):
        made(f"ditbook.models.{module}", name, **fields)

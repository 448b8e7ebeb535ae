"""DALL·E against transformers' GPT-2 on the same embeddings: outputs, loss, gradients, in both orders."""

import pytest
import torch
import torch.nn.functional as F

from ditbook.models.dalle import BOS, DALLE, DALLEConfig
from ditbook.objectives.tokens import two_part_loss

CONFIG = DALLEConfig(words=11, codes=7, text=5, grid=3, width=24, depth=3, heads=4)
NAMES = {
    "ln_f": "norm", "ln_1": "norms.0", "ln_2": "norms.1", "attn.c_attn": "attention.qkv",
    "attn.c_proj": "attention.proj",
    "mlp.c_fc": "mlp.fc1", "mlp.c_proj": "mlp.fc2",
}  # fmt: skip


@pytest.fixture
def ours():
    torch.manual_seed(0)
    model = DALLE(CONFIG).double()
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    return model


def ours_by_name(name):
    found = next(ours for theirs, ours in NAMES.items() if theirs in name)
    layer = next((f"layers.{part}." for part in name.split(".") if part.isdigit()), "")
    return f"{layer}{found}.{name.rsplit('.', 1)[1]}"


def turned(name, value):
    """Conv1D of transformers stores (in, out)."""
    return value.T if ".c_" in name and value.ndim == 2 else value


def theirs(model):
    """transformers' GPT-2 without its own embeddings."""
    from transformers import GPT2Config, GPT2Model

    sizes = {"n_embd": CONFIG.width, "n_layer": CONFIG.depth, "n_head": CONFIG.heads, "n_positions": CONFIG.length}
    twin = GPT2Model(GPT2Config(**sizes, embd_pdrop=0.0, attn_pdrop=0.0, resid_pdrop=0.0)).double()
    state = model.state_dict()
    ready = {name: turned(name, state[ours_by_name(name)]) for name in twin.state_dict() if not name.startswith("wp")
             and not name.startswith("wt")}  # fmt: skip
    twin.load_state_dict(ready, strict=False)
    torch.nn.init.zeros_(twin.wpe.weight)  # our embeddings hold the positions
    return twin


def sequences(model, image_first):
    generator = torch.Generator().manual_seed(1)
    text = torch.randint(3, 11, (2, 5), generator=generator)
    text[:, 0], text[0, 3:] = BOS, 0
    return model.sequence(text, torch.randint(7, (2, 9), generator=generator), image_first=image_first)


@pytest.mark.parametrize("image_first", [False, True])
@pytest.mark.equation(
    "9.14", of="ditbook.objectives.tokens.two_part_loss", against="transformers' GPT-2, two softmaxes"
)
def test_outputs_loss_and_gradients(ours, image_first):
    twin, tokens = theirs(ours), sequences(ours, image_first)
    inputs, targets = tokens[:, :-1], tokens[:, 1:]
    x = ours.embed(inputs, ours.indices(tokens[:, 0], 0, inputs.shape[1]))
    hidden = twin(inputs_embeds=x).last_hidden_state
    # Two vocabularies apart: the words after the text's places, the codes after the image's.
    is_word, is_code = (targets < 11) & (targets > BOS), (targets >= 11) & (targets < ours.config.begin_image)
    words = F.cross_entropy((hidden @ ours.tokens.weight[:11].T)[is_word], targets[is_word])
    codes = F.cross_entropy((hidden @ ours.tokens.weight[11:-1].T)[is_code], targets[is_code] - 11)
    wanted = words / 8 + 7 * codes / 8
    logits = ours(inputs)
    finite = logits.isfinite()
    torch.testing.assert_close(logits[finite], (hidden @ ours.tokens.weight.T)[finite])
    loss = two_part_loss(logits, targets, *ours.parts(targets))
    torch.testing.assert_close(loss, wanted)
    names = [name for name, _ in twin.named_parameters() if not name.startswith("wte") and not name.startswith("wpe")]
    by_theirs = torch.autograd.grad(wanted, [dict(twin.named_parameters())[name] for name in names] + [
        ours.tokens.weight, ours.places.weight, ours.rows.weight, ours.padding.weight], retain_graph=True)  # fmt: skip
    loss.backward()
    parameters = dict(ours.named_parameters())
    for name, gradient in zip([*names, "tokens", "places", "rows", "padding"], by_theirs, strict=True):
        mine = parameters[ours_by_name(name)] if name in names else parameters[f"{name}.weight"]
        torch.testing.assert_close(mine.grad, turned(name, gradient))

"""GPT against transformers on the same random weights: outputs, loss, gradients, attention maps and cached steps."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from ditbook.models.gpt import GPT, GPTConfig
from ditbook.objectives.tokens import next_token_loss

CONFIG = GPTConfig(vocabulary=19, longest=16, width=24, depth=3, heads=4)


@pytest.fixture
def ours():
    torch.manual_seed(0)
    model = GPT(CONFIG).double()
    for parameter in model.parameters():
        nn.init.normal_(parameter, std=0.3)
    return model


def theirs(model):
    """transformers' GPT-2, or its GPT-1 for post-norm, with the weights of ours."""
    from transformers import GPT2Config, GPT2LMHeadModel, OpenAIGPTConfig, OpenAIGPTLMHeadModel

    c = model.config
    sizes = {
        "vocab_size": c.vocabulary, "n_positions": c.longest, "n_embd": c.width, "n_layer": c.depth,
        "n_head": c.heads, "embd_pdrop": 0.0, "attn_pdrop": 0.0, "resid_pdrop": 0.0,
    }  # fmt: skip
    twin = GPT2LMHeadModel(GPT2Config(**sizes)) if c.pre_norm else OpenAIGPTLMHeadModel(OpenAIGPTConfig(**sizes))
    twin = twin.double()
    twin.load_state_dict({name: ours_by_name(name, model.state_dict()) for name in twin.state_dict()})
    return twin


def ours_by_name(name, state):
    """Conv1D of transformers stores (in, out)."""
    table = {
        "wte": "tokens", "tokens_embed": "tokens", "lm_head": "tokens", "wpe": "positions", "ln_f": "norm",
        "positions_embed": "positions", "ln_1": "norms.0", "ln_2": "norms.1", "attn.c_attn": "attention.qkv",
        "attn.c_proj": "attention.proj", "mlp.c_fc": "mlp.fc1", "mlp.c_proj": "mlp.fc2",
    }  # fmt: skip
    found = next(ours for theirs, ours in table.items() if theirs in name)
    layer = next((f"layers.{part}." for part in name.split(".") if part.isdigit()), "")
    value = state[f"{layer}{found}.{name.rsplit('.', 1)[1]}"]
    return value.T if ".c_" in name and value.ndim == 2 else value


def some_tokens(batch=2, length=9):
    return torch.randint(CONFIG.vocabulary, (batch, length), generator=torch.Generator().manual_seed(1))


@pytest.mark.equation("5.3", of="ditbook.models.gpt.GPT.encode", against="transformers' GPT-2, gradients too")
@pytest.mark.equation("5.4", of="ditbook.models.gpt.GPT.logits", against="transformers' GPT-2, gradients too")
def test_outputs_loss_and_gradients(ours):
    twin, tokens = theirs(ours), some_tokens()
    wanted = twin(tokens, labels=tokens)
    torch.testing.assert_close(ours.encode(tokens), twin.transformer(tokens).last_hidden_state)
    torch.testing.assert_close(ours(tokens), wanted.logits)
    loss = next_token_loss(ours(tokens)[:, :-1], tokens[:, 1:], pad=-100)
    torch.testing.assert_close(loss.float(), wanted.loss)  # theirs is computed in float32
    other = F.cross_entropy(wanted.logits[:, :-1].flatten(0, 1), tokens[:, 1:].flatten())
    mine = torch.autograd.grad(loss, list(ours.parameters()))
    named = dict(zip((name for name, _ in ours.named_parameters()), mine, strict=True))
    parameters = dict(twin.named_parameters())
    assert len(parameters) == len(named)
    for name, grad in zip(parameters, torch.autograd.grad(other, list(parameters.values())), strict=True):
        torch.testing.assert_close(ours_by_name(name, named), grad, msg=lambda text, name=name: f"{name}: {text}")


def test_post_norm_is_the_first_gpt():
    torch.manual_seed(0)
    model = GPT(GPTConfig(**{**vars(CONFIG), "pre_norm": False})).double()
    for parameter in model.parameters():
        nn.init.normal_(parameter, std=0.3)
    torch.testing.assert_close(model(some_tokens()), theirs(model)(some_tokens()).logits)


def test_attention_maps_are_theirs(ours):
    twin = theirs(ours)
    twin.set_attn_implementation("eager")
    wanted = torch.stack(twin(some_tokens(), output_attentions=True).attentions, dim=1)
    torch.testing.assert_close(ours.attention_maps(some_tokens()), wanted)


def test_padding_on_the_left_is_theirs(ours):
    twin, tokens = theirs(ours), some_tokens()
    mask = torch.arange(9) >= torch.tensor([[3], [0]])
    positions = (mask.long().cumsum(1) - 1).clamp(min=0)
    wanted = twin(tokens, attention_mask=mask.long(), position_ids=positions).logits
    torch.testing.assert_close(ours(tokens, mask)[mask], wanted[mask])


def test_greedy_texts_are_theirs(ours):
    from ditbook import generation

    tokens = some_tokens(3, 4)
    got = generation.greedy(ours.step, ours.start(tokens[:, :-1]), first=tokens[:, -1], max_length=10)
    wanted = theirs(ours).generate(tokens, do_sample=False, max_new_tokens=10, pad_token_id=0, eos_token_id=None)
    assert torch.equal(got, wanted[:, 4:])

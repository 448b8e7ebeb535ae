import pytest
import torch
from torch import nn

from ditbook.convert.autoencoder import load_diffusers, to_diffusers
from ditbook.models.autoencoder import Autoencoder, AutoencoderConfig

CONFIG = AutoencoderConfig(latent_channels=4, widths=(16, 24, 32), blocks=1, groups=8, scale=1.0)


def make(seed=0):
    torch.manual_seed(seed)
    model = Autoencoder(CONFIG).double()
    for parameter in model.parameters():
        nn.init.normal_(parameter, std=0.1)
    return model


@pytest.mark.parametrize("older", [False, True])
def test_the_layout_loads(older):
    model, other = make(), make(seed=5)
    state = to_diffusers(model)
    if older:
        names = {"to_q": "query", "to_k": "key", "to_v": "value", "to_out.0": "proj_attn"}
        for new, old in names.items():
            state = {key.replace(f"attentions.0.{new}", f"attentions.0.{old}"): v for key, v in state.items()}
        assert "encoder.mid_block.attentions.0.query.weight" in state
    load_diffusers(other, state)
    for name, value in model.state_dict().items():
        torch.testing.assert_close(other.state_dict()[name], value, check_dtype=False, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda state: state.pop("quant_conv.bias"), "key 'quant_conv.bias' is missing"),
        (lambda state: state.update(other=torch.zeros(1)), "key 'other' is unexpected"),
        (lambda state: state.update({"encoder.conv_in.bias": torch.zeros(3)}), "'encoder.conv_in.bias' has shape"),
    ],
)
def test_other_files_are_refused(change, message):
    state = to_diffusers(make())
    change(state)
    with pytest.raises(ValueError, match=message):
        load_diffusers(make(seed=5), state)

"""Images as bytes are refused by every model that takes images, with the type and the range that it takes."""

import pytest
import torch

from ditbook.judges.scene_reader import SceneReader, SceneReaderConfig
from ditbook.models.autoencoder import Autoencoder, AutoencoderConfig
from ditbook.models.clip import CLIP, CLIPConfig
from ditbook.models.dit import DiT, DiTConfig
from ditbook.models.dvae import DVAE, DVAEConfig
from ditbook.models.text_dit import TextDiT, TextDiTConfig
from ditbook.models.unclip import UnCLIPDecoder, UnCLIPDecoderConfig
from ditbook.models.unet import UNet, UNetConfig, Upsampler, UpsamplerConfig
from ditbook.models.vit import ViT, ViTConfig

B, SMALL = 2, {"width": 16, "depth": 1, "heads": 2}
AUTOENCODER, DISCRETE = (
    AutoencoderConfig(widths=(8, 16), groups=4),
    DVAEConfig(vocabulary=11, width=8, start=8, groups=2, blocks=1),
)
TOWERS = CLIPConfig(
    size=8, patch=4, width=24, depth=1, heads=3, vocabulary=40, context=9, text_width=16, text_depth=1, joint=10
)
TIMES, TOKENS = torch.zeros(B, dtype=torch.long), torch.zeros(B, 5, dtype=torch.long)
CALLS = {
    "DiT": lambda x: DiT(DiTConfig(size=8, channels=3, num_classes=5, **SMALL))(x, TIMES, TIMES),
    "TextDiT": lambda x: TextDiT(TextDiTConfig(channels=3, text_width=16, **SMALL))(x, TIMES, TOKENS),
    "UnCLIPDecoder": lambda x: UnCLIPDecoder(UnCLIPDecoderConfig(channels=3, joint=10))(x, TIMES, torch.zeros(B, 10)),
    "UNet": lambda x: UNet(UNetConfig(channels=3))(x, TIMES),
    "Upsampler": lambda x: Upsampler(UpsamplerConfig(channels=3))(x, TIMES, x[..., ::2, ::2].float(), TIMES),
    "Upsampler's input": lambda x: Upsampler(UpsamplerConfig(channels=3))(x.float(), TIMES, x[..., ::2, ::2], TIMES),
    "ViT": lambda x: ViT(ViTConfig(size=8, patch=4, **SMALL))(x),
    "ViT's maps": lambda x: ViT(ViTConfig(size=8, patch=4, **SMALL)).attention_maps(x),
    "CLIP": lambda x: CLIP(TOWERS)(x, TOKENS),
    "Autoencoder": lambda x: Autoencoder(AUTOENCODER).to_latents(x),
    "DVAE": lambda x: DVAE(DISCRETE).tokens(x),
    "DVAE's likelihood": lambda x: DVAE(DISCRETE).nats(x, DVAE(DISCRETE).codes(torch.zeros(B, 4, 4).long())),
    "SceneReader": lambda x: SceneReader(SceneReaderConfig(width=16))(x.repeat(1, 1, 4, 4)),
}


@pytest.mark.parametrize("name", CALLS)
def test_bytes_are_refused_and_what_they_become_is_taken(name):
    pixels = torch.full((B, 3, 8, 8), 200, dtype=torch.uint8)
    with pytest.raises(
        ValueError, match=r"images of type torch.uint8; expected floating-point numbers.* x / 127.5 - 1"
    ):
        CALLS[name](pixels)
    if "Upsampler" not in name:
        CALLS[name](pixels / 127.5 - 1)

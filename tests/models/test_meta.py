"""Every model runs on the meta device, where no number can be looked at, and on a GPU where there is one."""

import pytest
import torch

from ditbook.judges.scene_reader import SceneReader, SceneReaderConfig
from ditbook.models.autoencoder import Autoencoder, AutoencoderConfig
from ditbook.models.bert import BERT, BERTConfig
from ditbook.models.clip import CLIP, CLIPConfig, class_vectors
from ditbook.models.dalle import DALLE, DALLEConfig
from ditbook.models.dit import BLOCKS, DiT, DiTConfig
from ditbook.models.dvae import DVAE, DVAEConfig
from ditbook.models.gpt import GPT, GPTConfig, GPTScorer
from ditbook.models.prior import AutoregressivePrior, AutoregressivePriorConfig, DiffusionPrior, DiffusionPriorConfig
from ditbook.models.rnn import LanguageModel, LanguageModelConfig
from ditbook.models.seq2seq import KINDS, Seq2Seq, Seq2SeqConfig
from ditbook.models.text_dit import BLOCKS as TEXT_BLOCKS
from ditbook.models.text_dit import TextDiT, TextDiTConfig
from ditbook.models.transformer import Transformer, TransformerConfig
from ditbook.models.unclip import UnCLIPDecoder, UnCLIPDecoderConfig
from ditbook.models.unet import UNet, UNetConfig, Upsampler, UpsamplerConfig
from ditbook.models.vit import ViT, ViTConfig
from ditbook.objectives.discrete import quantized_loss, relaxed_loss

CUDA = pytest.param("cuda", marks=pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device"))
devices = pytest.mark.parametrize("device", ["meta", CUDA])
B = 2
ENCODER_DECODERS = {
    "transformer": lambda: Transformer(TransformerConfig(source=11, target=9, width=12, heads=3)),
    "post-norm": lambda: Transformer(TransformerConfig(source=11, target=9, width=12, heads=3, pre_norm=False)),
    **{kind: lambda kind=kind: Seq2Seq(Seq2SeqConfig(source=11, target=9, width=12, attention=kind)) for kind in KINDS},
}


def tokens(device, length, vocabulary=9):
    return torch.arange(B * length, device=device).view(B, length) % vocabulary


def on(value, device):
    assert value.device.type == device
    return value.shape


@devices
@pytest.mark.parametrize("block", BLOCKS)
def test_dit(device, block):
    model = DiT(DiTConfig(size=8, channels=3, width=16, depth=1, heads=2, num_classes=5, block=block)).to(device)
    t, y = torch.zeros(B, dtype=torch.long, device=device), torch.ones(B, dtype=torch.long, device=device)
    x = torch.zeros(B, 3, 8, 8, device=device)
    assert on(model(x, t, y), device) == (B, 6, 8, 8)
    assert on(model(x, t, **model.null_condition(y)), device) == (B, 6, 8, 8)


@devices
@pytest.mark.parametrize("block", TEXT_BLOCKS)
def test_text_dit(device, block):
    model = TextDiT(TextDiTConfig(channels=3, width=16, depth=2, text_width=16, num_classes=5, block=block)).to(device)
    t, y = torch.zeros(B, dtype=torch.long, device=device), torch.ones(B, dtype=torch.long, device=device)
    x, caption = torch.zeros(B, 3, 8, 8, device=device), tokens(device, 5)
    assert on(model(x, t, caption, y), device) == x.shape
    assert on(model(x, t, **model.null_condition(caption, y)), device) == x.shape


@devices
def test_unet(device):
    x, t = torch.zeros(B, 1, 8, 8, device=device), torch.zeros(B, dtype=torch.long, device=device)
    assert on(UNet(UNetConfig()).to(device)(x, t), device) == x.shape


@devices
def test_upsampler(device):
    x, low = torch.zeros(B, 1, 8, 8, device=device), torch.zeros(B, 1, 4, 4, device=device)
    t = torch.zeros(B, dtype=torch.long, device=device)
    assert on(Upsampler(UpsamplerConfig()).to(device)(x, t, low=low, level=t), device) == x.shape


@devices
def test_autoencoder_with_a_generator_on_the_cpu(device):
    model, x = (
        Autoencoder(AutoencoderConfig(widths=(8, 16), groups=4)).to(device),
        torch.zeros(B, 3, 8, 8, device=device),
    )
    z = model.to_latents(x, torch.Generator().manual_seed(0))
    assert on(z, device) == (B, 4, 4, 4)
    assert on(model.from_latents(z), device) == x.shape


@devices
def test_vit(device):
    config = ViTConfig(size=12, patch=4, width=24, depth=2, heads=3, num_classes=7)
    model, x = ViT(config).to(device), torch.zeros(B, 3, 12, 12, device=device)
    assert on(model(x), device) == (B, 7)
    assert on(model.attention_maps(x), device) == (B, 2, 3, 10, 10)


@devices
@pytest.mark.parametrize("causal", [False, True])
def test_bert(device, causal):
    model = BERT(BERTConfig(vocabulary=9, positions=8, width=12, depth=2, heads=3, causal=causal)).to(device)
    words, sentences = model(tokens(device, 5), segments=tokens(device, 5, 2))
    assert on(words, device) == (B, 5, 9)
    assert on(sentences, device) == (B, 2)
    assert on(model.attention_maps(tokens(device, 5)), device) == (B, 2, 3, 5, 5)


@devices
def test_clip(device):
    config = CLIPConfig(
        size=12, patch=4, width=24, depth=1, heads=3, vocabulary=40, context=9, text_width=16, text_depth=1, joint=10
    )
    model, words = CLIP(config).to(device), tokens(device, 6, 40)
    assert on(model(torch.zeros(B, 3, 12, 12, device=device), words), device) == (B, B)
    assert on(class_vectors(model, words[None], torch.ones(1, B, dtype=torch.long, device=device)), device) == (1, 10)
    model.clamp_scale()


@devices
def test_scene_reader(device):
    model, x = SceneReader(SceneReaderConfig(width=16)).to(device), torch.zeros(B, 3, 32, 32, device=device)
    assert on(model(x), device) == (B, 23, 16, 16)
    assert on(model.features(x), device) == (B, 16)
    assert on(model.probabilities(x), device) == (B, 64)


@devices
@pytest.mark.parametrize("name", ENCODER_DECODERS)
def test_encoder_decoders_and_their_states(device, name):
    model, source = ENCODER_DECODERS[name]().to(device), tokens(device, 7)
    assert on(model(source, tokens(device, 5)), device) == (B, 5, 9)
    state = model.start(source)
    for t in range(3):
        logits, state = model.step(tokens(device, 3)[:, t], state)
        assert on(logits, device) == (B, 9)


@devices
@pytest.mark.parametrize("kind", ["rnn", "lstm", "gru"])
def test_language_models(device, kind):
    model = LanguageModel(LanguageModelConfig(vocabulary=9, width=4, hidden=6, layers=2, kind=kind)).to(device)
    assert on(model(tokens(device, 5)), device) == (B, 5, 9)
    logits, _ = model.step(tokens(device, 1)[:, 0], model.start(tokens(device, 5)))
    assert on(logits, device) == (B, 9)


@devices
def test_gpt(device):
    model = GPT(GPTConfig(vocabulary=9, longest=12, width=12, depth=2, heads=3)).to(device)
    assert on(model(tokens(device, 7)), device) == (B, 7, 9)
    logits, _ = model.step(tokens(device, 1)[:, 0], model.start(tokens(device, 5)))
    assert on(logits, device) == (B, 9)
    scorer = GPTScorer(model.config).to(device)
    assert on(scorer(tokens(device, 7)), device) == (B, 7)


@devices
def test_the_parts_of_unclip(device):
    sizes = {"joint": 10, "vocabulary": 9, "context": 8, "width": 12, "depth": 2, "heads": 3}
    t, vector = torch.zeros(B, dtype=torch.long, device=device), torch.zeros(B, 10, device=device)
    decoder, x = UnCLIPDecoder(UnCLIPDecoderConfig(joint=10)).to(device), torch.zeros(B, 4, 8, 8, device=device)
    assert on(decoder(x, t, vector), device) == x.shape
    assert on(decoder(x, t, **decoder.null_condition(vector)), device) == x.shape
    prior, caption = DiffusionPrior(DiffusionPriorConfig(**sizes)).to(device), tokens(device, 5)
    assert on(prior(vector, t, caption, vector), device) == (B, 10)
    assert on(prior(vector, t, **prior.null_condition(caption, vector)), device) == (B, 10)
    writer = AutoregressivePrior(AutoregressivePriorConfig(**sizes, components=4, values=7, dots=3)).to(device)
    assert on(writer(caption, vector, tokens(device, 4)), device) == (B, 4, 7)
    logits, _ = writer.step(tokens(device, 1)[:, 0], writer.start(caption, vector))
    assert on(logits, device) == (B, 7)


@devices
@pytest.mark.parametrize("code_width", [None, 4])
def test_dvae_with_a_generator_on_the_cpu(device, code_width):
    sizes = {"vocabulary": 11, "width": 8, "start": 8, "groups": 2, "blocks": 1}
    model, x = DVAE(DVAEConfig(**sizes, code_width=code_width)).to(device), torch.zeros(B, 3, 8, 8, device=device)
    assert on(model.images(model.tokens(x)), device) == x.shape
    generator = torch.Generator().manual_seed(0)
    if model.quantizer is None:
        assert on(relaxed_loss(model, x, 0.5, 1.0, generator), device) == ()
    else:
        assert on(quantized_loss(model, x, 0.25), device) == ()
        model.quantizer.replace(torch.ones(11, dtype=torch.bool, device=device), model.vectors(x), generator)


@devices
@pytest.mark.parametrize("image_first", [False, True])
def test_dalle(device, image_first):
    model = DALLE(DALLEConfig(words=9, codes=9, text=4, grid=2, width=12, depth=2, heads=3)).to(device)
    whole = model.sequence(tokens(device, 4), tokens(device, 4), image_first=image_first)
    assert on(model(whole), device) == (B, 9, 19)
    logits, _ = model.step(whole[:, 5], model.start(whole[:, :5]))
    assert on(logits, device) == (B, 19)

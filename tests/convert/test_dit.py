import dataclasses

import pytest
import torch
from safetensors.torch import load_file

from ditbook.convert import dit as layouts
from ditbook.models.dit import DiT, DiTConfig

CONFIG = DiTConfig(size=8, channels=3, patch=2, width=16, depth=3, heads=2, num_classes=5)
LAYOUTS = {
    "official": (layouts.to_official, layouts.load_official),
    "diffusers": (layouts.to_diffusers, layouts.load_diffusers),
}


def random_dit(seed=0, config=CONFIG):
    torch.manual_seed(seed)
    model = DiT(config)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(std=0.2)
    return model


def identical(first, second):
    first, second = first.state_dict(), second.state_dict()
    return all(torch.equal(first[key], second[key]) for key in first)


def test_key_counts_of_the_largest_model():
    with torch.device("meta"):
        model = DiT(DiTConfig.from_name("DiT-XL/2"))
    official, theirs = layouts.to_official(model), layouts.to_diffusers(model)
    assert len(official) == 292
    assert len(theirs) == 538
    assert sum(value.numel() for value in official.values()) == 675_129_632
    assert sum(value.numel() for value in theirs.values()) == 749_826_464


def test_official_names_and_shapes_at_xl():
    with torch.device("meta"):
        state = layouts.to_official(DiT(DiTConfig.from_name("DiT-XL/2")))
    d = 1152
    wanted = {
        "x_embedder.proj.weight": (d, 4, 2, 2),
        "x_embedder.proj.bias": (d,),
        "t_embedder.mlp.0.weight": (d, 256),
        "t_embedder.mlp.2.weight": (d, d),
        "y_embedder.embedding_table.weight": (1001, d),
        "pos_embed": (1, 256, d),
        "final_layer.linear.weight": (32, d),
        "final_layer.adaLN_modulation.1.weight": (2 * d, d),
    }
    for i in (0, 13, 27):
        wanted |= {
            f"blocks.{i}.attn.qkv.weight": (3 * d, d),
            f"blocks.{i}.attn.proj.weight": (d, d),
            f"blocks.{i}.mlp.fc1.weight": (4 * d, d),
            f"blocks.{i}.mlp.fc2.bias": (d,),
            f"blocks.{i}.adaLN_modulation.1.weight": (6 * d, d),
            f"blocks.{i}.adaLN_modulation.1.bias": (6 * d,),
        }
    assert {key: tuple(state[key].shape) for key in wanted} == wanted


def test_diffusers_names_copy_the_embedders_into_every_block():
    model = random_dit()
    state = layouts.to_diffusers(model)
    for i in range(3):
        block = f"transformer_blocks.{i}"
        embedders = f"{block}.norm1.emb"
        assert torch.equal(state[f"{embedders}.timestep_embedder.linear_1.weight"], model.time_embed.mlp[0].weight)
        assert torch.equal(state[f"{embedders}.class_embedder.embedding_table.weight"], model.label_embed.table.weight)
        parts = [state[f"{block}.attn1.to_{letter}.weight"] for letter in "qkv"]
        assert torch.equal(torch.cat(parts), model.blocks[i].attn.qkv.weight)
    assert {key.split(".")[0] for key in state} == {"pos_embed", "transformer_blocks", "proj_out_1", "proj_out_2"}


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("learn_sigma", [True, False])
def test_there_and_back(layout, learn_sigma):
    write, load = LAYOUTS[layout]
    config = dataclasses.replace(CONFIG, learn_sigma=learn_sigma)
    source, target = random_dit(0, config), random_dit(1, config)
    assert not identical(source, target)
    load(target, write(source))
    assert identical(source, target)
    written, again = write(source), write(target)
    assert written.keys() == again.keys()
    assert all(torch.equal(written[key], again[key]) for key in written)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_missing_key_is_named(layout):
    write, load = LAYOUTS[layout]
    model = random_dit()
    for key in list(write(model)):
        state = write(model)
        del state[key]
        with pytest.raises(ValueError, match=rf"in the {layout} layout: key '{key}' is missing"):
            load(model, state)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_unexpected_key_is_named(layout):
    write, load = LAYOUTS[layout]
    model = random_dit()
    with pytest.raises(ValueError, match=rf"in the {layout} layout: key 'blocks\.3\.extra' is unexpected"):
        load(model, write(model) | {"blocks.3.extra": torch.zeros(1)})


@pytest.mark.parametrize("layout", LAYOUTS)
def test_misshapen_key_is_named_with_both_shapes(layout):
    write, load = LAYOUTS[layout]
    model = random_dit()
    for key, value in write(model).items():
        state = write(model) | {key: torch.zeros(2, *value.shape)}
        with pytest.raises(ValueError, match=rf"{layout} layout: '{key}' has shape \(2, .*this model needs \("):
            load(model, state)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_weights_of_a_deeper_and_of_a_wider_model(layout):
    write, load = LAYOUTS[layout]
    model = random_dit()
    with pytest.raises(ValueError, match=r"blocks\.3\..*is unexpected"):
        load(model, write(random_dit(config=dataclasses.replace(CONFIG, depth=4))))
    with pytest.raises(ValueError, match="this model needs"):
        load(model, write(random_dit(config=dataclasses.replace(CONFIG, width=32))))


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_refused_file_changes_no_weight(layout):
    write, load = LAYOUTS[layout]
    model, before = random_dit(), random_dit()
    state = write(random_dit(1))
    del state[list(state)[-1]]
    with pytest.raises(ValueError, match="is missing"):
        load(model, state)
    assert identical(model, before)


def test_other_position_table():
    model = random_dit()
    state = layouts.to_official(model)
    state["pos_embed"] = state["pos_embed"].flip(1)
    with pytest.raises(ValueError, match="'pos_embed' is not the sine–cosine table"):
        layouts.load_official(model, state)


def test_embedders_that_differ_between_blocks():
    model = random_dit()
    state = layouts.to_diffusers(model)
    key = "transformer_blocks.2.norm1.emb.timestep_embedder.linear_1.weight"
    state[key] = state[key] + 1
    with pytest.raises(ValueError, match=r"'timestep_embedder\.linear_1' of block 2 differs from that of block 0"):
        layouts.load_diffusers(model, state)


def test_their_position_buffer_is_accepted():
    source, target = random_dit(), random_dit(1)
    layouts.load_diffusers(target, layouts.to_diffusers(source) | {"pos_embed.pos_embed": source.pos_embed[None]})
    assert identical(source, target)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_blocks_that_were_never_published_have_no_layout(layout):
    write, load = LAYOUTS[layout]
    model = random_dit(config=dataclasses.replace(CONFIG, block="cross-attention"))
    for refused in (lambda: write(model), lambda: load(model, {})):
        with pytest.raises(ValueError, match="a DiT with cross-attention blocks has no such layout"):
            refused()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_a_training_checkpoint_in_half_precision_loads(dtype):
    """The averaged weights of a distributed run, as the official training script saves them."""
    torch.manual_seed(3)
    source, target = DiT(CONFIG), DiT(CONFIG)
    for parameter in source.parameters():
        torch.nn.init.normal_(parameter)
    half = {f"module.{key}": value.to(dtype) for key, value in layouts.to_official(source).items()}
    layouts.load_official(target, {"ema": half, "model": {}, "opt": {}, "args": None})
    for key, value in source.state_dict().items():
        torch.testing.assert_close(target.state_dict()[key], value.to(dtype).float())


def test_a_file_in_the_official_layout_loads_again(tmp_path):
    model, other = (DiT(DiTConfig(size=8, width=16, depth=2, heads=2, num_classes=3)) for _ in range(2))
    layouts.save_official(model, tmp_path / "dit.safetensors")
    layouts.load_official(other, load_file(tmp_path / "dit.safetensors"))
    assert all(torch.equal(value, other.state_dict()[key]) for key, value in model.state_dict().items())


def test_a_full_disk_leaves_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "dit.safetensors"
    layouts.save_official(DiT(CONFIG), path)
    before = path.read_bytes()

    def half(state, target):
        target.write_bytes(b"half")
        raise OSError("no space left on device")

    monkeypatch.setattr(layouts, "save_file", half)
    with pytest.raises(OSError, match="no space left"):
        layouts.save_official(DiT(CONFIG), path)
    assert [file.name for file in tmp_path.iterdir()] == [path.name]
    assert path.read_bytes() == before

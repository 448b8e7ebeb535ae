import pytest
import torch

from ditbook import rng


def seeded(seed=3):
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize("shape", [(7,), (40, 3), (2, 3, 5, 5)])
def test_the_numbers_are_those_of_torch(shape):
    cpu = torch.device("cpu")
    for dtype in (torch.float32, torch.float64):
        like = torch.zeros(1, dtype=dtype)
        assert torch.equal(rng.randn(shape, seeded(), like), torch.randn(shape, generator=seeded(), dtype=dtype))
    assert torch.equal(rng.rand(shape, seeded(), cpu), torch.rand(shape, generator=seeded()))
    assert torch.equal(rng.randint(10, shape, seeded(), cpu), torch.randint(10, shape, generator=seeded()))


def test_noise_for_bytes_is_refused():
    with pytest.raises(ValueError, match=r"images of type torch.uint8; .* scale bytes by x / 127.5 - 1"):
        rng.randn((2,), seeded(), torch.zeros(2, dtype=torch.uint8))


def test_a_generator_on_the_cpu_serves_every_device():
    there = torch.device("meta")
    assert rng.randn((2, 3), seeded(), torch.zeros(1, dtype=torch.bfloat16, device=there)).device == there
    assert rng.rand((2, 3), seeded(), there).device == rng.randint(4, (2,), seeded(), there).device == there

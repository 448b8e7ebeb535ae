import math

import pytest
import torch
import torch.nn.functional as F

from ditbook.layers.directions import closest, scaled, slerp, turned, unscaled


def units(*shape, seed=0):
    return F.normalize(torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64), dim=-1)


@pytest.mark.equation("14.2", of="ditbook.layers.directions.scaled", against="the mean square of noise, 1")
def test_scaled_vectors_are_as_large_as_noise():
    u = units(5, 64)
    torch.testing.assert_close(scaled(u).square().mean(dim=1), torch.ones(5, dtype=torch.float64))
    assert u.square().mean().item() == pytest.approx(1 / 64)
    torch.testing.assert_close(unscaled(scaled(u)), u)
    assert scaled(torch.ones(1, 295)).mean().item() == pytest.approx(math.sqrt(295))  # 17.2, the paper's number
    assert math.sqrt(295) == pytest.approx(17.2, abs=0.05)


@pytest.mark.equation("14.11", of="ditbook.layers.directions.slerp", against="a rotation in the plane of both")
def test_slerp_rotates_in_the_plane_of_both():
    first, last = units(4, 8), units(4, 8, seed=1)
    across = F.normalize(last - (last * first).sum(-1, keepdim=True) * first, dim=-1)  # at a right angle to first
    angle = torch.atan2((last * across).sum(-1), (last * first).sum(-1))
    for weight in (0.0, 0.25, 0.7, 1.0):
        turn = (weight * angle)[:, None]
        torch.testing.assert_close(slerp(first, last, weight), turn.cos() * first + turn.sin() * across)
    weights = torch.tensor([0.0, 0.5, 1.0], dtype=torch.float64).view(3, 1, 1)
    path = slerp(first, last, weights)
    torch.testing.assert_close(path[0], first)
    torch.testing.assert_close(path[2], last)
    torch.testing.assert_close(path.norm(dim=-1), torch.ones(3, 4, dtype=torch.float64))


@pytest.mark.equation("13.9", of="ditbook.layers.directions.slerp", against="a rotation by matrices; the norm")
def test_the_arc_between_two_noises():
    one, other = torch.tensor([[3.0, 0.0, 0.0]]), torch.tensor([[0.0, 3.0, 0.0]])
    for fraction in (0.0, 0.2, 0.5, 1.0):
        angle = fraction * math.pi / 2
        wanted = torch.tensor([[3 * math.cos(angle), 3 * math.sin(angle), 0.0]])
        torch.testing.assert_close(slerp(one, other, fraction), wanted, atol=1e-6, rtol=0)
    noises = torch.randn(2, 64, 768, generator=torch.Generator().manual_seed(0))
    middle = slerp(noises[0], noises[1], 0.5)
    assert middle.std().item() == pytest.approx(1, abs=0.01)
    assert (noises.mean(0)).std().item() == pytest.approx(0.5**0.5, abs=0.01)
    torch.testing.assert_close(slerp(noises[0], noises[0], 0.3), noises[0])


@pytest.mark.equation("14.12", of="ditbook.layers.directions.turned", against="the angles of three plane vectors")
def test_turning_by_a_difference_of_captions():
    def plane(degrees):
        angle = math.radians(degrees)
        return torch.tensor([[math.cos(angle), math.sin(angle)]], dtype=torch.float64)

    # The difference of 60° minus 0° points to 120°; half of the way there from 20° is 70°.
    torch.testing.assert_close(turned(plane(20), plane(0), plane(60), 0.5), plane(70))
    torch.testing.assert_close(turned(plane(20), plane(0), plane(60), 0.0), plane(20))
    assert turned(plane(20), plane(0), plane(60), 0.5).norm().item() == pytest.approx(1)


@pytest.mark.equation("14.7", of="ditbook.layers.directions.closest", against="one caption after another")
def test_the_closest_candidate():
    candidates, text = units(3, 6, 8), units(6, 8, seed=2)
    found = closest(candidates, text)
    for k in range(6):
        similarity = [float(candidate[k] @ text[k]) for candidate in candidates]
        assert torch.equal(found[k], candidates[similarity.index(max(similarity)), k])

"""Fast samplers: steps for the loop of `samplers` that solve the probability-flow equation, or its stochastic form.

All work on every process: with x = a x₀ + b ε, σ = b / a and λ = −log σ, the equation is d(x/a) = ε dσ, and also
d(x/b) = x₀ d(a/b). The step from σ = ∞, if there is one, and the last one, to σ = 0, are of first order.
Letters: `B` batch, `C` channels.
"""

import math

import torch
from torch import Tensor

from ditbook.diffusion.samplers import P, Run

MOST_CHURN = math.sqrt(2) - 1  # a level is raised by this fraction at most: twice its variance


def euler(
    x: Tensor,
    i: int,
    run: Run[P],
    *,
    churn: float = 0.0,
    low: float = 0.0,
    high: float = math.inf,
    inflate: float = 1.0,
) -> Tensor:
    """Euler's step in x/a over σ. Without churn it is `ddim` without noise.

    Args:
        churn: fresh noise: before each step σ is raised by the fraction churn / T, at most √2 − 1.
        low, high: the lowest and highest σ at which that is done.
        inflate: factor of the fresh noise.

    Source: Karras et al. 2022, algorithm 2, without its second-order correction.
    """
    x, process = _churned(x, i, run, churn, low, high, inflate)
    prediction = run.denoise(x, i, process)
    a, b = run.diffusion.scales(i - 1)
    return a * prediction.x_start + b * prediction.eps  # a short step of (12.2)


def heun(
    x: Tensor,
    i: int,
    run: Run[P],
    *,
    churn: float = 0.0,
    low: float = 0.0,
    high: float = math.inf,
    inflate: float = 1.0,
) -> Tensor:
    """Heun's step in x/a over σ, of second order: two calls of the model, in the last step one.

    Args:
        churn, low, high, inflate: as for `euler`.

    Source: Karras et al. 2022, algorithms 1 and 2.
    """
    x, process = _churned(x, i, run, churn, low, high, inflate)
    first, sigma = run.denoise(x, i, process), process.sigmas[i].item()
    a, b = run.diffusion.scales(i - 1)
    x = a * first.x_start + b * first.eps
    if i == 0 or math.isinf(sigma):
        return x
    return x + (b - a * sigma) / 2 * (run.denoise(x, i - 1).eps - first.eps)  # (12.6)


def _churned(x: Tensor, i: int, run: Run[P], churn: float, low: float, high: float, inflate: float) -> tuple[Tensor, P]:
    """Noisier images, and the process that has their level at index `i`."""
    sigma = run.diffusion.sigmas[i].item()
    gamma = min(churn / run.diffusion.num_steps, MOST_CHURN)
    if not (low <= sigma <= high and gamma > 0 and math.isfinite(sigma)):
        return x, run.diffusion
    process = run.noisier(1 + gamma)
    ratio = process.scales(i)[0] / run.diffusion.scales(i)[0]
    fresh = process.scales(i)[0] * inflate * sigma * math.sqrt((1 + gamma) ** 2 - 1)
    return ratio * x + fresh * run.noise(x), process


def dpm_solver(x: Tensor, i: int, run: Run[P], *, stochastic: bool = False) -> Tensor:
    """DPM-Solver++(2M): exponential integration over λ, with x₀ linear through this prediction and the one before.

    Args:
        stochastic: solve the stochastic equation, whose noise is that of `ddpm`: SDE-DPM-Solver++(2M).

    Source: Lu et al. 2022, "DPM-Solver++", algorithm 2 and its form for stochastic equations.
    """
    now = run.denoise(x, i).x_start
    b, (a_next, b_next) = run.diffusion.scales(i)[1], run.diffusion.scales(i - 1)
    h = _log_snr(run, i - 1) - _log_snr(run, i)
    if i > 0 and (past := _earlier(run, 2)):
        now = now + h / (2 * (past[0][0] - _log_snr(run, i))) * (past[0][1] - now)
    if not stochastic:
        return b_next / b * x - a_next * math.expm1(-h) * now  # (12.8); (12.7) with constant x₀
    x = b_next / b * math.exp(-h) * x - a_next * math.expm1(-2 * h) * now
    return x + b_next * math.sqrt(-math.expm1(-2 * h)) * run.noise(x) if i > 0 else x  # (12.9)


def unipc(x: Tensor, i: int, run: Run[P], *, order: int = 3) -> Tensor:
    """UniPC: a multistep predictor, and a corrector that adds one to its order and costs no call of the model.

    The corrector uses the prediction at the end of the step, which then serves as the next step's first. So a step that
    wraps this one may not change x.

    Args:
        order: of the predictor, 1 to 4; the first and last steps are of lower order.

    Raises:
        ValueError: another order.

    Source: Zhao et al. 2023, algorithms 1 and 2, with the prediction of x₀ and B(h) = e^h − 1 (their code's "bh2").
    """
    if order not in (1, 2, 3, 4):
        raise ValueError(f"order must lie in 1 to 4, got {order}")
    here = run.diffusion.sigmas[i].item()
    now = (run.history[-1] if run.levels and run.levels[-1] == here else run.denoise(x, i)).x_start
    b, (a_next, b_next) = run.diffusion.scales(i)[1], run.diffusion.scales(i - 1)
    start, h = _log_snr(run, i), _log_snr(run, i - 1) - _log_snr(run, i)
    past = _earlier(run, min(order, i + 1))
    base = b_next / b * x - a_next * math.expm1(-h) * now  # of first order: `ddim`
    ratios = [(before - start) / h for before, _ in past]
    slopes = [(value - now) / ratio for (_, value), ratio in zip(past, ratios, strict=True)]  # of (12.10)
    predicted = base - a_next * math.expm1(-h) * _weighted(_weights(ratios, h), slopes, x)
    if i == 0:
        return predicted
    slopes.append(run.denoise(predicted, i - 1).x_start - now)
    return base - a_next * math.expm1(-h) * _weighted(_weights([*ratios, 1.0], h), slopes, x)


def _weights(ratios: list[float], h: float) -> list[float]:
    """The weights of differences of x₀ at `ratios`, in units of the step `h`; a single one counts one half.

    Source: Zhao et al. 2023, theorem 3.1, and its code for the single one.
    """
    if len(ratios) < 2:
        return [0.5] * len(ratios)
    points = torch.tensor(ratios, dtype=torch.float64)
    powers, wanted = [], []
    phi, factorial = math.expm1(-h) / -h - 1, 1.0
    for n in range(len(ratios)):
        powers.append(points**n)
        wanted.append(phi * factorial / math.expm1(-h))
        factorial *= n + 2
        phi = phi / -h - 1 / factorial
    return torch.linalg.solve(torch.stack(powers), torch.tensor(wanted, dtype=torch.float64)).tolist()


def _weighted(weights: list[float], values: list[Tensor], like: Tensor) -> Tensor:
    return sum((w * value for w, value in zip(weights, values, strict=True)), torch.zeros_like(like))


def _log_snr(run: Run[P], i: int) -> float:
    """λ at index `i`, half the logarithm of the signal-to-noise ratio; ∞ at −1."""
    return math.inf if i < 0 else -math.log(run.diffusion.sigmas[i].item())


def _earlier(run: Run[P], order: int) -> list[tuple[float, Tensor]]:
    """λ and x₀ of the predictions before the newest, newest first, that a method of `order` may use."""
    found, level = [], run.levels[-1]
    for sigma, prediction in list(zip(run.levels, run.history, strict=True))[-2 : -order - 1 : -1]:
        if not level < sigma < math.inf:
            break
        found.append((-math.log(sigma), prediction.x_start))
        level = sigma
    return found

"""From an image to the noise that `ddim` turns into it: the same steps, taken towards the noise.

Letters: `B` batch, `C` channels.
"""

import torch
from torch import Tensor
from tqdm import tqdm

from ditbook.diffusion.process import Model, Process
from ditbook.diffusion.samplers import P, Run


def ddim_inverse(x: Tensor, i: int, run: Run[P]) -> Tensor:
    """One step up, from index i − 1 to index i, with the prediction at the lower end.

    The clean image, at index −1, has no timestep of its own: its noise is predicted at index 0.

    Args:
        x: images at index i − 1, (B, C, …).
        i: the index to go to, from 0.
        run: as for the steps of `samplers`.

    Source: Song et al. 2021, section 4.3; Dhariwal & Nichol 2021, appendix F.
    """
    a, b = run.diffusion.scales(i)
    if i == 0:
        return a * x + b * run.denoise(a * x, 0).eps
    prediction = run.denoise(x, i - 1)
    return a * prediction.x_start + b * prediction.eps  # (12.11)


@torch.no_grad()
def invert(
    model: Model,
    x_start: Tensor,
    diffusion: Process,
    *,
    clip: float | None = None,
    progress: bool = False,
    **condition: Tensor,
) -> Tensor:
    """The noise from which `samplers.sample` with `ddim` makes these images again, up to the error of its steps.

    Args:
        model: `model(x, t, **condition)`; with the guidance that sampling will use, or without.
        x_start: clean images or latents, (B, C, …).
        diffusion: the process. For fewer steps pass `diffusion.respace(count)`; each index costs one call.
        clip: bound of the predicted clean image, or None.
        progress: show a bar.
        condition: passed to the model, each (B, …).

    Returns:
        Images at the last index of `diffusion`, (B, C, …).
    """
    run = Run(model, diffusion, condition, clip, None)
    x = x_start
    for i in tqdm(range(diffusion.num_steps), disable=not progress):
        x = ddim_inverse(x, i, run)
    return x

"""Draw book/static/samples.png: digits sampled from the trained DiT, five of each class, guidance 2."""

from pathlib import Path

import torch

from ditbook import plotting, weights
from ditbook.diffusion import guidance, samplers, schedules
from ditbook.diffusion.gaussian import GaussianDiffusion

y = torch.arange(10).repeat(5)
noise = torch.randn(50, 1, 8, 8, generator=torch.Generator().manual_seed(0))
model = guidance.ClassifierFreeGuidance(weights.load("dit-digits"), 2.0, null={"y": 10})
images = samplers.ddim(model, noise, GaussianDiffusion(schedules.linear()).respace(50), clip=1.0, y=y)
plotting.use_style()
target = Path(__file__).parents[1] / "book/static/samples.png"
plotting.grid(images, columns=10).savefig(target, dpi=plotting.DPI, metadata={"Software": None})

"""Losses that models other than diffusion models are trained on. They know no model."""

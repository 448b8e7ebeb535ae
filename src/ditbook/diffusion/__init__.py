"""The diffusion process, whatever the network: a model is any callable `model(x, t, **condition)`."""

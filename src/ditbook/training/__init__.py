"""Training: a loop that can be read, averaged weights, checkpoints that resume exactly."""

"""What models are trained on: losses that know no model."""

"""What is measured: of a model, of its samples."""

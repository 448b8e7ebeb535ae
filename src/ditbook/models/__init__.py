"""One file per family of models, in the order of the book."""

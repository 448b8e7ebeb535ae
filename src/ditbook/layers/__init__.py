"""Blocks that several models share: attention, the Transformer block, convolutions, patches, embeddings, checks."""

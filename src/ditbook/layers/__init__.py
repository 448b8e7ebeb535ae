"""Blocks that several models share: attention, embeddings, patches, the MLP, adaLN modulation."""

"""Converts public weights to FADA checkpoints. This is the only place that opens pickles, and only for tensors."""

"""Public weights of the same family -> FADA checkpoints. The only place that opens pickles, and only for tensors."""

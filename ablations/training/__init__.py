"""Training of one cell: shared module, training loop, callbacks, checkpoints, optimiser, loggers."""

"""Training one cell: the shared module, the loop that drives it, callbacks, checkpoints, optimiser, loggers."""

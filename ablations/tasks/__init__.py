"""Training tasks: the loss of a batch, and the metrics of an evaluation."""

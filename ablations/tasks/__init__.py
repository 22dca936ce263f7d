"""What a cell trains: the loss of a batch, and what an evaluation measures."""

"""Benchmarks of the harness, the data loader, models, normalisers and the arms of a study."""

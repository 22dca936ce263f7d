"""What the harness itself costs: its cells per hour beside hand-written loops and one script per cell."""

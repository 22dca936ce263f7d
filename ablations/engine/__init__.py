"""Run cells: one in this process, or many in worker processes."""

"""Everything that only a GPU can show, in one command of a few minutes: tests, benchmarks, a study."""

"""The ablation harness: grids of paired training runs, and what their numbers support."""

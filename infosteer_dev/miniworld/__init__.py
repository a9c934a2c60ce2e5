"""Build the mini-world's models from a seed, and audit their world: what shipped in infosteer_bench/data/miniworld."""

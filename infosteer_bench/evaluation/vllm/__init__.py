"""Engine vllm: one live engine, weights swapped into it and read back."""

"""The paper's own numbers: its board, its known faults, and ours beside them."""

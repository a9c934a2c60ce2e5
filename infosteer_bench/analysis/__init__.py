"""What fine-tuning does inside: numbers and figures from the key coefficients of checkpoints (paper 4.3, 6.1, 6.2)."""

"""Models: which there are, where their memory lives, how they are found and loaded."""

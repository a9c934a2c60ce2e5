"""What a board is made of: the compact records beside it, its items as arrays, its layout, the paper's own numbers."""

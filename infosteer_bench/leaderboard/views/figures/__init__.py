"""Figures of a board as SVG and PNG."""

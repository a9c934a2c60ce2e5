"""What only a clone of the repository needs: the mini-world's builder, the generators of docs and group YAMLs.

The wheel does not carry it. It may import infosteer_bench, which knows of it in commands/miniworld.py alone.
"""

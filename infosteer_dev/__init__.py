"""Tools of this repository's own development: the generated documentation and the site. The wheel does not carry it.

It may import `infosteer_bench`; `infosteer_bench` must run without it (`tests/unit/test_structure.py`).
"""

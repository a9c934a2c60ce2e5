"""matplotlib's settings for the figures of `analyze`, whatever the user's own are.

with drawing_settings(9):
    figure.savefig(path, metadata={"Date": None})
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def drawing_settings(size: float) -> Iterator[None]:
    """matplotlib's defaults and ours; the user's come back afterwards. size: of text, in points."""
    import matplotlib

    with matplotlib.rc_context():
        matplotlib.rcdefaults()
        matplotlib.rcParams.update({"svg.hashsalt": "infosteer", "svg.fonttype": "none", "font.size": size})
        yield

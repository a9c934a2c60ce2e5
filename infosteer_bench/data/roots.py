"""Which place data come from: a local root, the embedded world, or upstream.

source = open_source(data_root)            # None: upstream, checked and cached
"""

from __future__ import annotations

import os
from pathlib import Path

from infosteer_bench.data.download import Progress
from infosteer_bench.data.miniworld.files import MiniWorld
from infosteer_bench.data.sources import DataSource, LocalRoot, Upstream

MINIWORLD = Path("miniworld")
"""The data root that stands for the embedded world."""


def open_source(data_root: Path | None, *, progress: Progress | None = None) -> DataSource:
    """The local root `data_root` (or INFOSTEER_DATA_ROOT), or else upstream. `progress` hears of downloads.

    The root "miniworld" is the embedded world (write ./miniworld for a folder of that name).
    Raises UserError for a root that is no folder or holds none of the files.
    """
    if data_root is None and os.environ.get("INFOSTEER_DATA_ROOT"):
        data_root = Path(os.environ["INFOSTEER_DATA_ROOT"])
    if data_root == MINIWORLD:
        return MiniWorld()
    return LocalRoot(data_root) if data_root is not None else Upstream(progress=progress)

"""A board as a data frame."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pandas as pd


def read_board(folder: Path) -> pd.DataFrame:
    """leaderboard.csv of a board's folder; an empty field of text is "", of numbers NaN."""
    import pandas as pd

    return pd.read_csv(Path(folder) / "leaderboard.csv", keep_default_na=False)

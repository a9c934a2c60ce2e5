"""`read_board`: the same numbers that csv and pyarrow read from the files, with types that can be computed with."""

from __future__ import annotations

import csv
import json
import math
import subprocess
import sys
from pathlib import Path
from typing import Any

import boards
import pandas as pd
import pyarrow.csv
import pyarrow.parquet as pq
import pytest

from infosteer_bench.errors import UserError
from infosteer_bench.leaderboard import publish
from infosteer_bench.leaderboard.numbers.columns import BOARD
from infosteer_bench.leaderboard.paper.board import rebuild_paper
from infosteer_bench.leaderboard.read import FILES, WHOSE, read_board
from infosteer_bench.records import ITEM_COLUMNS

ROOT = Path(__file__).resolve().parents[2]
EMBEDDED = ROOT / "leaderboards" / "embedded"


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = boards.write_run(tmp_path_factory.mktemp("read") / "run", mechanism=True)
    publish(folder, folder / "leaderboard")
    return folder


def lines_of(path: Path) -> list[dict[str, str]]:
    with open(path, encoding="utf-8", newline="") as handle:
        return list(csv.DictReader(handle))


def same(value: Any, text: str, dtype: str) -> bool:
    """Whether a value of the frame is what the file says."""
    if dtype in ("str", "object"):
        return value == text
    if dtype == "bool":
        return bool(value) == (text == "true")
    return bool(pd.isna(value)) if text == "" else float(value) == float(text)


@pytest.mark.parametrize("which", list(FILES))
def test_every_value_is_the_one_in_the_file(which: Any, run: Path):
    for folder in (EMBEDDED, run):
        name, _ = FILES[which]
        path = folder / name if (folder / name).exists() else folder / "leaderboard" / name
        lines, frame = lines_of(path), read_board(folder, which=which)
        assert list(frame.columns) == list(lines[0])
        assert len(frame) == len(lines)
        for column in frame.columns:
            dtype = str(frame[column].dtype)
            assert all(same(value, line[column], dtype) for value, line in zip(frame[column], lines, strict=True)), (
                column
            )


def test_types_are_fit_to_compute_with():
    frame = read_board(EMBEDDED)
    kinds = {"float": pd.api.types.is_float_dtype, "str": pd.api.types.is_string_dtype}
    for column in BOARD:
        series = frame[column.name]
        if column.kind.dtype == "str":
            assert kinds["str"](series), column.name
            assert series.notna().all()
        elif column.kind.dtype == "float64":
            assert kinds["float"](series), column.name
    assert frame["complete"].dtype == bool
    assert str(frame["n_seeds"].dtype) == "Int64"
    assert math.isnan(frame.loc[frame["method"] == "sft", "delta_vs_sft"].iloc[0])
    assert str(read_board(EMBEDDED, which="mechanism")["seed"].dtype) == "Int64"


def test_it_agrees_with_pyarrow():
    table = pyarrow.csv.read_csv(EMBEDDED / "leaderboard.csv")
    frame = read_board(EMBEDDED)
    assert table.column_names == list(frame.columns)
    for name in ("accuracy", "delta_vs_sft", "p_holm"):
        theirs = [math.nan if value is None else value for value in table.column(name).to_pylist()]
        assert frame[name].tolist() == pytest.approx(theirs, nan_ok=True)


def test_items_know_whose_they_are(run: Path):
    frame = read_board(run, which="items")
    raw = pq.read_table(run / "leaderboard/records/items.parquet").to_pylist()
    assert list(frame.columns) == [*WHOSE, "cell", *ITEM_COLUMNS, "score"]
    assert len(frame) == len(raw)
    cells = read_board(run, which="cells").set_index("key")
    for (_, line), item in zip(frame.iloc[::37].iterrows(), raw[::37], strict=True):
        assert [line[name] for name in ("cell", "doc_id", "generation")] == [
            item[name] for name in ("cell", "doc_id", "generation")
        ]
        assert line["score"] == json.loads(item["correct"])["robust"]
        cell = cells.loc[item["cell"]]
        assert [line[name] for name in WHOSE if name != "seed"] == [cell[name] for name in WHOSE if name != "seed"]
        assert (pd.isna(line["seed"]) and pd.isna(cell["seed"])) or line["seed"] == cell["seed"]
    of_cell = frame.groupby("cell", observed=True)["score"].mean() * 100
    assert of_cell.to_dict() == pytest.approx(cells["robust"].to_dict())
    assert set(frame[frame["method"] == "base"]["mix"]) == {""}


def test_a_board_of_reported_numbers_has_rows_and_no_items(tmp_path: Path):
    rebuild_paper(tmp_path)
    frame = read_board(tmp_path)
    assert len(frame) == 384
    assert frame["accuracy"].isna().all()
    assert frame["reported"].notna().all()
    for which in ("deltas", "ranks", "mechanism", "items", "cells"):
        assert len(read_board(tmp_path, which=which)) == 0


def test_names_that_look_like_nothing_stay_names(tmp_path: Path):
    """pandas' own reader takes NA, None and nan for missing."""
    folder = boards.write_run(tmp_path / "run", model="NA", seeds=(0,))
    publish(folder, folder / "leaderboard")
    assert set(read_board(folder)["model"]) == set(read_board(folder, which="items")["model"]) == {"NA"}


def test_an_older_board_lacks_a_column_and_a_damaged_one_a_file(tmp_path: Path, run: Path):
    frame = read_board(run)
    frame.drop(columns=["option_rank", "mix"]).to_csv(tmp_path / "leaderboard.csv", index=False)
    older = read_board(tmp_path)
    assert list(older.columns) == list(frame.columns)
    assert older["option_rank"].isna().all()
    assert set(older["mix"]) == {""}
    with pytest.raises(UserError, match=r"deltas\.csv is missing"):
        read_board(tmp_path, which="deltas")


def test_what_is_no_board_is_told(tmp_path: Path):
    for folder in (tmp_path, tmp_path / "nowhere", str(tmp_path)):
        with pytest.raises(UserError, match="is no board"):
            read_board(folder)
    with pytest.raises(UserError, match="is no table of a board"):
        read_board(EMBEDDED, which="row")  # type: ignore[arg-type]


def test_pandas_is_loaded_when_it_is_needed_only():
    program = (
        "import infosteer_bench.leaderboard.read, sys; assert not {'pandas', 'pyarrow', 'torch'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", program], check=True, cwd=ROOT)

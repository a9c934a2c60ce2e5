"""The catalog's rows and what --models means."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest

from infosteer_bench.errors import UserError
from infosteer_bench.models.catalog import CATALOG, is_hub_id, looks_like_path, select_models
from infosteer_bench.models.families import FAMILIES

PAPER = ["qwen2.5-1.5b", "qwen2.5-7b", "llama-3.2-1b", "llama-3-8b", "gemma-2-2b", "gemma-2-9b"]


def test_rows_are_whole() -> None:
    embedded = ["mini-qwen2", "mini-llama", "mini-gemma2"]
    assert list(CATALOG) == [*PAPER, "smollm2-135m", "qwen2.5-0.5b", "gemma-3-270m", *embedded]
    for name, row in CATALOG.items():
        assert name == row.id == name.lower()
        assert row.family in FAMILIES
        assert (row.folder is not None) == (row.hub_id is None) == (name in embedded)
        if row.hub_id is None:
            assert not row.gated
            continue
        assert is_hub_id(row.hub_id)
        assert row.gated == (row.family.startswith("gemma") or row.hub_id.startswith("meta-llama/"))
        assert (row.paper_name is not None) == (name in PAPER)
    assert len({row.hub_id or name for name, row in CATALOG.items()}) == len(CATALOG)


def test_paper_names_are_those_of_the_papers_tables(data_root: Path) -> None:
    table = data_root.parent / "paper" / "reported_commonsense.csv"
    if not table.is_file():
        pytest.skip("no reported numbers beside the data")
    with open(table, newline="") as handle:
        names = {row["model"] for row in csv.DictReader(handle)}
    assert {CATALOG[name].paper_name for name in PAPER} == names


@pytest.mark.parametrize(
    ("texts", "grid", "expected"),
    [
        (["all"], ["qwen2.5-7b", "./mine"], ["qwen2.5-7b", "./mine"]),
        (["llama"], PAPER, ["llama-3.2-1b", "llama-3-8b"]),
        (["llama"], ["smollm2-135m"], ["smollm2-135m"]),
        (["gemma"], PAPER, ["gemma-2-2b", "gemma-2-9b"]),
        (["gemma3"], PAPER, ["gemma-3-270m"]),  # the grid has none: the catalog's
        (["qwen2"], ["qwen2.5-7b"], ["qwen2.5-7b"]),
        (["qwen2.5-7b,gemma-2-2b", "qwen2.5-7b"], PAPER, ["qwen2.5-7b", "gemma-2-2b"]),
        (["Someone/Model-1B"], PAPER, ["Someone/Model-1B"]),
    ],
)
def test_selection(texts: list[str], grid: list[str], expected: list[str]) -> None:
    assert select_models(texts, grid_models=grid) == expected


def test_a_folder_is_a_model(tmp_path: Path) -> None:
    assert select_models([str(tmp_path)], grid_models=PAPER) == [str(tmp_path)]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("qwen2.5-1.5", "unknown model 'qwen2.5-1.5'.*did you mean 'qwen2.5-1.5b'"),
        ("./nowhere", "model folder ./nowhere does not exist"),
        ("/no/such/folder", "does not exist"),
        ("qwen2,,llama", "empty name"),
        ("", "empty name"),
        ("qwen3", "catalog has no qwen3 model"),
        ("a/b/c", "does not exist"),
    ],
)
def test_unknown_models(text: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        select_models([text], grid_models=PAPER)


def test_hub_ids_and_paths() -> None:
    assert is_hub_id("Qwen/Qwen2.5-7B")
    assert not any(map(is_hub_id, ["a", "a/b/c", "./a", "/a", "a/", "~/a", "../a"]))
    assert all(map(looks_like_path, ["./a", "../a", "/a", "~/a", "a/", "a/b/c"]))
    assert not looks_like_path("a/b")

"""Verdicts, differences and ranks of a board, from synthetic items."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from statsmodels.stats.multitest import multipletests

from infosteer_bench.benchmark import GROUPS
from infosteer_bench.leaderboard.numbers.columns import DELTAS, RANKS
from infosteer_bench.leaderboard.numbers.comparisons import ONE_SEED
from infosteer_bench.leaderboard.numbers.row import Row
from infosteer_bench.leaderboard.numbers.rows import build_rows
from infosteer_bench.leaderboard.numbers.standings import ALL_MODELS, standings
from infosteer_bench.leaderboard.numbers.statistics import compare
from infosteer_bench.leaderboard.numbers.table import to_csv
from infosteer_bench.leaderboard.store.items import ItemScores
from infosteer_bench.leaderboard.store.layout import read_layout
from infosteer_bench.records import CellRecord, digest

N = 200
OOD = GROUPS["ood"]
METHODS = ("base", "sft", "good", "same")
MIX_OF = {task: "gsm8k" if task in GROUPS["math"] else "commonsense" for task in GROUPS["all"]}


class Board:
    """Cells and their items, made to measure."""

    def __init__(self) -> None:
        self.cells: list[CellRecord] = []
        self.items: dict[str, ItemScores] = {}

    def add(self, method: str, seed: int | None, task: str, right: np.ndarray, *, model: str = "m", **changes) -> None:
        key = digest([model, method, seed, task])
        self.cells.append(
            CellRecord.model_validate(
                {
                    "key": key,
                    "status": "success",
                    "identity": {},
                    "checkpoint_key": digest([method, seed]),
                    "model": model,
                    "family": "llama",
                    "method": method,
                    "arm": "",
                    "task": task,
                    "seed": seed,
                    "mix": None if seed is None else MIX_OF[task],
                    "split": "OOD" if task in OOD else "ID",
                    "engine": "hf",
                    "dtype": "float32",
                    "limit": None,
                    "n_items": len(right),
                    "n_total": len(right),
                    "exact_match": {"robust": 100 * float(right.mean())},
                    "unparsed": {"robust": 0.0},
                    "truncated": 0.0,
                    **changes,
                }
            )
        )
        self.items[key] = ItemScores(correct={"robust": right.astype(np.float64)}, asked=f"{task}-{len(right)}")

    def rows(self) -> list[Row]:
        grid = {"methods": [{"name": name, "arm": ""} for name in dict.fromkeys(cell.method for cell in self.cells)]}
        return build_rows(self.cells, read_layout(grid, self.cells), self.items)


def board(
    tasks: Iterable[str] = GROUPS["all"], seeds: Iterable[int] = range(5), models: Iterable[str] = ("m",)
) -> Board:
    """`good` answers half of what sft does not; `same` answers exactly what sft does."""
    made = Board()
    for model in models:
        generator = np.random.default_rng(0)
        for task in tasks:
            ability = generator.random(N)
            made.add("base", None, task, ability < 0.2, model=model)
            for seed in seeds:
                sft = generator.random(N) < 0.5 * ability
                made.add("sft", seed, task, sft, model=model)
                made.add("good", seed, task, sft | (generator.random(N) < 0.5), model=model)
                made.add("same", seed, task, sft, model=model)
    return made


def deltas(rows: Iterable[Row]) -> csv.DictReader:
    """The lines of deltas.csv."""
    return csv.DictReader(io.StringIO(to_csv(DELTAS, (row for row in rows if row.delta_vs_sft is not None))))


def row_of(rows: Iterable[Row], method: str, task: str) -> Row:
    return next(row for row in rows if (row.method, row.task) == (method, task))


def test_what_answers_more_wins_and_what_answers_the_same_ties():
    rows = board().rows()
    for task in GROUPS["all"]:
        good, same = row_of(rows, "good", task), row_of(rows, "same", task)
        assert (good.verdict, same.verdict) == ("win", "tie")
        assert same.versus is not None
        assert (same.delta_vs_sft, same.versus.p_value, same.p_holm) == (0.0, 1.0, 1.0)
        assert good.versus is not None
        assert good.versus.low > 0
        assert good.delta_vs_sft == pytest.approx(100 * good.versus.mean)
    for group in GROUPS:
        good, same = row_of(rows, "good", f"mean:{group}"), row_of(rows, "same", f"mean:{group}")
        assert (good.verdict, same.verdict, same.p_holm) == ("win", "tie", 1.0)
        assert good.interval is not None
        assert good.interval[0] < (good.accuracy or 0) < good.interval[1]
    assert {row.verdict for row in rows if row.method in ("base", "sft")} == {""}
    assert row_of(rows, "base", "boolq").versus is not None


def test_holm_runs_over_methods_and_tasks_and_over_means_apart():
    rows = board().rows()
    for means in (False, True):
        family = [row for row in rows if row.p_holm is not None and row.task.startswith("mean:") == means]
        assert len(family) == 2 * (len(GROUPS) if means else 15)
        raw = [row.versus.p_generalized for row in family if row.versus]
        expected = multipletests(raw, method="holm")[1]
        assert [row.p_holm for row in family] == pytest.approx(expected.tolist())


def test_a_mean_is_compared_as_the_macro_mean_of_its_tasks():
    made = board()
    rows = made.rows()
    pairs = []
    for task in GROUPS["all"]:
        good, sft = row_of(rows, "good", task), row_of(rows, "sft", task)
        pairs.append(np.stack([good.scores[seed] - sft.scores[seed] for seed in range(5)]))
    expected = compare(pairs, [MIX_OF[task] for task in GROUPS["all"]])
    found = row_of(rows, "good", "mean:all").versus
    assert found is not None
    assert (found.low, found.high) == pytest.approx((expected.low, expected.high))


def test_one_seed_has_an_interval_and_a_warning_and_no_verdict():
    rows = board(seeds=(0,)).rows()
    good = row_of(rows, "good", "boolq")
    assert good.versus is not None
    assert ONE_SEED in good.notes
    assert (good.verdict, good.p_holm) == ("", None)
    assert good.complete, "that there is one seed only is how it was asked for, not a fault of the row"


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"engine": "vllm"}, "mixed settings"),
        ({"dtype": "bfloat16"}, "mixed settings"),
        ({"limit": 100}, "mixed settings"),
    ],
)
def test_other_settings_are_not_compared(change, why):
    made = board(["boolq", "piqa"])
    made.cells = [
        cell.model_copy(update=change) if (cell.method, cell.task) == ("good", "boolq") else cell for cell in made.cells
    ]
    row = row_of(made.rows(), "good", "boolq")
    assert (row.delta_vs_sft, row.versus, row.verdict) == (None, None, "")
    assert any(why in note for note in row.notes)
    assert row_of(made.rows(), "good", "piqa").verdict == "win"


def test_other_items_are_not_compared():
    made = board(["boolq"])
    for cell in made.cells:
        if cell.method == "good":
            made.items[cell.key] = replace(made.items[cell.key], asked="others")
    row = row_of(made.rows(), "good", "boolq")
    assert row.versus is None
    assert "no difference to sft: other items" in row.notes


def test_a_missing_seed_leaves_a_difference_and_no_verdict():
    made = board(["boolq"])
    made.cells = [cell for cell in made.cells if (cell.method, cell.seed) != ("good", 2)]
    row = row_of(made.rows(), "good", "boolq")
    assert row.versus is not None
    assert row.versus.seeds == 4
    assert (row.verdict, row.complete) == ("", False)


def test_ranks_and_win_rates():
    rows = board(models=("a", "b")).rows()
    found = {(one.model, one.method): one for one in standings(rows)}
    assert set(found) == {(model, method) for model in ("a", "b", ALL_MODELS) for method in METHODS}
    for model in ("a", "b", ALL_MODELS):
        assert found[model, "good"].average_rank == 1.0
        assert found[model, "good"].win_rate == 1.0
        assert found[model, "same"].average_rank == found[model, "sft"].average_rank
        assert sum(found[model, method].average_rank for method in METHODS) == pytest.approx(1 + 2 + 3 + 4)
        assert sum(found[model, method].win_rate for method in METHODS) == pytest.approx(4 / 2)
    assert found[ALL_MODELS, "good"].n_tasks == 30
    lines = list(csv.DictReader(io.StringIO(to_csv(RANKS, standings(rows)))))
    wins = [(line["wins"], line["ties"]) for line in lines if line["method"] == "good"]
    assert wins == [("15", "0"), ("15", "0"), ("30", "0")]
    assert {line["wins"] for line in lines if line["method"] in ("base", "sft")} == {""}


def test_partial_mixed_and_stand_in_rows_are_not_ranked():
    whole = board(["boolq", "piqa", "siqa", "winogrande"])

    def changed(cell: CellRecord) -> CellRecord | None:
        if (cell.method, cell.task, cell.seed) == ("good", "boolq", 0):
            return None
        if (cell.method, cell.task) == ("sft", "piqa"):
            return cell.model_copy(update={"engine": "vllm"})
        return cell.model_copy(update={"stand_ins": ["x.json"]}) if cell.task == "siqa" else cell

    made = Board()
    made.items, made.cells = whole.items, [other for cell in whole.cells if (other := changed(cell)) is not None]
    rows = made.rows()
    assert {one.n_tasks for one in standings(rows)} == {1}, "winogrande alone"
    assert row_of(rows, "good", "siqa").stand_ins
    assert {line["task"] for line in deltas(rows)} >= {"boolq", "siqa"}, "but shown"


def test_deltas_csv_says_what_could_have_been_found():
    lines = list(deltas(board().rows()))
    assert {line["method"] for line in lines} == {"base", "good", "same"}
    for line in lines:
        low, delta, high = (float(line[name]) for name in ("ci_low", "delta", "ci_high"))
        assert low <= delta <= high
        assert (line["verdict"] == "") == (line["method"] == "base")
        if line["method"] == "good":
            assert float(line["detectable"]) > 0
            assert line["n_seeds"] == "5"


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(1, 3))
def test_identical_records_are_ties_everywhere(seed, n_seeds):
    generator = np.random.default_rng(seed)
    made = Board()
    for task in ("boolq", "gsm8k", "aqua"):
        for number in range(n_seeds):
            right = generator.random(30) < generator.random()
            made.add("sft", number, task, right)
            made.add("good", number, task, right)
    for row in made.rows():
        if row.method == "good" and row.versus is not None:
            assert (row.delta_vs_sft, row.versus.p_value) == (0.0, 1.0)
            assert row.verdict in ("", "tie")

"""Rows of a board from synthetic records: known numbers, and everything that makes a number doubtful."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from infosteer_bench.benchmark import GROUPS
from infosteer_bench.leaderboard.numbers.columns import BOARD, ROWS
from infosteer_bench.leaderboard.numbers.row import Row, number
from infosteer_bench.leaderboard.numbers.rows import build_rows
from infosteer_bench.leaderboard.numbers.table import to_csv
from infosteer_bench.leaderboard.store.layout import read_layout
from infosteer_bench.records import CellRecord, digest

COMMONSENSE = ("boolq", "piqa", "siqa", "hellaswag", "winogrande", "arc_easy", "arc_challenge", "openbookqa")
MATH = ("gsm8k", "addsub", "singleeq", "multiarith", "aqua", "mawps", "svamp")
MIXES = [{"name": "commonsense", "tasks": list(COMMONSENSE)}, {"name": "gsm8k", "tasks": list(MATH)}]
OOD = ("addsub", "singleeq", "multiarith", "aqua", "mawps", "svamp")


def cell(
    task: str = "boolq",
    accuracy: float = 50.0,
    *,
    method: str = "sft",
    seed: int | None = 0,
    mix: str | None = "",
    model: str = "qwen2.5-1.5b",
    arm: str = "",
    **changes: object,
) -> CellRecord:
    """A finished cell; the mix follows from the task unless it is given."""
    trains = method != "base"
    if mix == "":
        mix = ("commonsense" if task in COMMONSENSE else "gsm8k") if trains else None
    values = {
        "status": "success",
        "identity": {"note": "synthetic"},
        "model": model,
        "family": "qwen2",
        "method": method,
        "arm": arm,
        "mix": mix,
        "seed": seed if trains else None,
        "task": task,
        "split": "OOD" if task in OOD else "ID",
        "engine": "hf",
        "dtype": "bfloat16",
        "limit": None,
        "n_items": 200,
        "n_total": 200,
        "exact_match": {"robust": accuracy, "strict": accuracy / 2},
        "unparsed": {"robust": 10.0, "strict": 50.0},
        "truncated": 2.5,
        **changes,
    }
    key = digest({name: values[name] for name in ("model", "method", "arm", "mix", "seed", "task", "engine", "limit")})
    return CellRecord.model_validate({"key": key, "checkpoint_key": digest([model, method, arm, mix, seed]), **values})


def grid(**changes: object) -> dict:
    """What a run writes to grid.json."""
    return {
        "name": "synthetic",
        "models": [{"id": "qwen2.5-1.5b", "family": "qwen2", "instruct": False}],
        "methods": [{"name": "base", "arm": ""}, {"name": "sft", "arm": ""}],
        "mixes": MIXES,
        "tasks": [*COMMONSENSE, *MATH],
        "seeds": [0, 1],
        "eval": {"limit": None},
        "command": "infosteer-bench run",
        "description": "synthetic records",
        **changes,
    }


def rows_of(cells: Iterable[CellRecord], grid_json: dict | None = None) -> dict[tuple[str, str, str, str], Row]:
    """Rows by (method, arm, mix, task)."""
    found = list(cells)
    rows = build_rows(found, read_layout(grid_json, found))
    by_key = {(row.method, row.arm, row.mix, row.task): row for row in rows}
    assert len(by_key) == len(rows)
    return by_key


def full(methods: Iterable[str] = ("base", "sft"), seeds: Iterable[int] = (0, 1)) -> list[CellRecord]:
    """Every cell of the grid; accuracy tells task, method and seed apart."""
    cells: list[CellRecord] = []
    for m, method in enumerate(methods):
        for t, task in enumerate((*COMMONSENSE, *MATH)):
            for seed in (None,) if method == "base" else seeds:
                cells.append(cell(task, 20 + t + 5 * m + 2 * (seed or 0), method=method, seed=seed))
    return cells


def test_a_task_row_is_the_mean_over_seeds_with_its_spread_and_difference():
    rows = rows_of(full(), grid())
    sft, base = rows["sft", "", "commonsense", "boolq"], rows["base", "", "", "boolq"]
    assert (sft.accuracy, base.accuracy) == (26.0, 20.0)
    assert sft.seed_std == pytest.approx(2**0.5)
    assert base.seed_std is None
    assert (sft.delta_vs_sft, base.delta_vs_sft) == (None, -6.0)
    assert sft.complete
    assert base.complete
    assert (sft.unparsed_rate, sft.truncated_rate, sft.n_items) == (10.0, 2.5, 200)


def test_means_are_macro_means_over_the_members_of_method_md():
    rows = rows_of(full(), grid())
    for group, members in GROUPS.items():
        row = next(row for key, row in rows.items() if key[0] == "sft" and key[3] == f"mean:{group}")
        parts = [next(r for k, r in rows.items() if k[0] == "sft" and k[3] == task) for task in members]
        assert row.accuracy == pytest.approx(sum(part.accuracy or 0 for part in parts) / len(members))
        assert row.n_items == 200 * len(members)
        assert row.complete
    assert len(GROUPS["id"]) == 9
    assert set(GROUPS["ood"]) - set(GROUPS["ood5"]) == {"aqua"}
    assert rows["sft", "", "commonsense+gsm8k", "mean:all"].accuracy == pytest.approx(20 + 5 + 1 + 7)
    assert rows["base", "", "", "mean:ood"].delta_vs_sft == pytest.approx(-6.0)
    assert rows["sft", "", "commonsense+gsm8k", "mean:id"].split == "ID"
    assert rows["sft", "", "commonsense+gsm8k", "mean:all"].split == ""


def test_a_missing_cell_is_empty_and_makes_its_means_partial():
    cells = [item for item in full() if not (item.task == "piqa" and item.method == "base")]
    rows = rows_of(cells, grid())
    row = rows["base", "", "", "piqa"]
    assert (row.accuracy, row.complete, row.notes) == (None, False, ("not run",))
    line = next(csv.DictReader(io.StringIO(to_csv(BOARD, [row]))))
    numbers = ("n_seeds", "n_items", "accuracy", "seed_std", "delta_vs_sft", "option_rank", "unparsed_rate")
    assert [line[name] for name in numbers] == [""] * len(numbers)
    assert line["complete"] == "false"
    mean = rows["base", "", "", "mean:commonsense"]
    assert not mean.complete
    assert "without piqa" in mean.notes
    assert mean.accuracy == pytest.approx((22 + 23) / 2)  # siqa and hellaswag
    assert mean.delta_vs_sft is None  # sft's mean has three members
    assert rows["base", "", "", "mean:math"].complete


def test_a_missing_seed_makes_the_row_partial_and_pairs_only_common_seeds():
    methods = [{"name": name, "arm": ""} for name in ("base", "sft", "infosteer-intervention")]
    cells = full(("base", "sft", "infosteer-intervention"))
    cells = [
        item for item in cells if not (item.method == "infosteer-intervention" and item.task == "boolq" and item.seed)
    ]
    row = rows_of(cells, grid(methods=methods))["infosteer-intervention", "", "commonsense", "boolq"]
    assert not row.complete
    assert list(row.by_seed) == [0]
    assert row.delta_vs_sft == pytest.approx(30 - 25)  # seed 0 against seed 0, not against sft's mean of 26
    assert "missing seeds 1" in row.notes
    mean = rows_of(cells, grid(methods=methods))["infosteer-intervention", "", "commonsense+gsm8k", "mean:id"]
    assert list(mean.by_seed) == [0]
    assert not mean.complete


@pytest.mark.parametrize("change", [{"engine": "vllm"}, {"dtype": "float32"}, {"limit": 20, "n_items": 20}])
def test_rows_of_different_settings_get_no_difference(change: dict):
    cells = [*full(), cell(accuracy=90, method="infosteer-intervention", seed=0, **change)]
    row = rows_of(cells)["infosteer-intervention", "", "commonsense", "boolq"]
    assert row.accuracy == 90
    assert row.delta_vs_sft is None
    assert any("mixed" in note for note in row.notes)


def test_one_row_from_two_engines_is_mixed_and_not_complete():
    row = rows_of([cell(seed=0), cell(seed=1, engine="vllm")], grid(seeds=[0, 1]))["sft", "", "commonsense", "boolq"]
    assert row.mixed
    assert not row.complete


def test_the_same_seed_answered_twice_counts_once():
    cells = [*full(), cell(accuracy=99, engine="vllm")]
    row = rows_of(cells, grid())["sft", "", "commonsense", "boolq"]
    assert row.accuracy == 26.0
    assert not row.complete


def test_a_task_outside_its_split_makes_that_mean_partial():
    cells = [
        item.model_copy(update={"split": "OOD"}) if item.task == "hellaswag" and item.method == "sft" else item
        for item in full()
    ]
    rows = rows_of(cells, grid())
    mean = rows["sft", "", "commonsense+gsm8k", "mean:id"]
    assert not mean.complete
    assert any("hellaswag" in note for note in mean.notes)
    assert "hellaswag" in mean.members  # the members never change silently
    assert rows["sft", "", "commonsense+gsm8k", "mean:all"].complete
    assert rows["base", "", "", "mean:id"].complete


def test_not_all_items_answered_is_not_complete():
    row = rows_of([cell(n_items=150)], grid(seeds=[0]))["sft", "", "commonsense", "boolq"]
    assert not row.complete


def test_arms_are_rows_of_their_own_and_are_compared_with_default_sft():
    cells = [*full(), cell(accuracy=70, arm="fraction=0.02", method="infosteer-intervention", seed=0)]
    cells += [cell(accuracy=60, method="infosteer-intervention", seed=0), cell(accuracy=1, arm="x=1", seed=0)]
    rows = rows_of(cells)
    assert rows["infosteer-intervention", "fraction=0.02", "commonsense", "boolq"].accuracy == 70
    assert rows["infosteer-intervention", "fraction=0.02", "commonsense", "boolq"].delta_vs_sft == pytest.approx(45)
    assert rows["infosteer-intervention", "", "commonsense", "boolq"].delta_vs_sft == pytest.approx(35)
    assert rows["sft", "x=1", "commonsense", "boolq"].delta_vs_sft == pytest.approx(-24)


def test_reported_numbers_stand_beside_default_arms_of_the_papers_models_only():
    cells = [*full(), cell(arm="alpha=2", method="infosteer-intervention")]
    cells += [cell(method="infosteer-intervention"), cell(model="smollm2-135m"), cell(model="Qwen/Qwen2.5-1.5B")]
    found = {(row.model, row.method, row.arm, row.task): row for row in build_rows(cells, read_layout(None, cells))}
    assert found["qwen2.5-1.5b", "base", "", "boolq"].reported == 64.2
    assert found["Qwen/Qwen2.5-1.5B", "sft", "", "boolq"].reported is not None
    assert found["qwen2.5-1.5b", "infosteer-intervention", "", "boolq"].reported is not None
    assert found["qwen2.5-1.5b", "infosteer-intervention", "alpha=2", "boolq"].reported is None
    assert found["smollm2-135m", "sft", "", "boolq"].reported is None
    assert found["qwen2.5-1.5b", "sft", "", "gsm8k"].reported is None


def test_a_users_own_task_and_mix_have_rows_but_enter_no_mean():
    cells = [*full(), cell("zoo", 88, mix="animals", exact_match={"first": 88.0}, unparsed={"first": 1.0})]
    rows = rows_of(cells)
    assert rows["sft", "", "animals", "zoo"].accuracy == 88
    assert rows["sft", "", "animals", "zoo"].unparsed_rate == 1
    assert rows["sft", "", "commonsense+gsm8k", "mean:all"].accuracy == pytest.approx(33)
    assert not [key for key in rows if key[2] == "animals" and key[3].startswith("mean:")]


def test_two_mixes_that_answer_one_task_are_not_thrown_together():
    rows = rows_of([*full(), cell("boolq", 90, mix="mine", seed=0)])
    assert rows["sft", "", "mine", "mean:reading"].accuracy == 90
    assert rows["sft", "", "commonsense", "mean:reading"].accuracy == 26
    assert ("sft", "", "commonsense+mine", "mean:reading") not in rows
    assert rows["base", "", "", "boolq"].delta_vs_sft is None  # two references, so none


def test_option_rank_is_given_where_every_member_has_one():
    cells = [item.model_copy(update={"option_rank": 40.0}) if item.task in COMMONSENSE else item for item in full()]
    rows = rows_of(cells, grid())
    assert rows["sft", "", "commonsense", "mean:knowledge"].option_rank == 40
    assert rows["sft", "", "commonsense+gsm8k", "mean:all"].option_rank is None


def test_other_filters_stand_beside_the_board_s_own():
    cells = [
        item.model_copy(update={"exact_match": item.exact_match | {"legacy": 60.0 + (item.seed or 0)}})
        if item.task in COMMONSENSE and item.method == "sft"
        else item
        for item in full()
    ]
    rows = rows_of(cells, grid())
    assert rows["sft", "", "commonsense", "boolq"].filters == {"strict": 13.0, "legacy": 60.5}
    assert rows["base", "", "", "boolq"].filters["legacy"] is None
    assert rows["sft", "", "commonsense", "mean:knowledge"].filters["legacy"] == 60.5
    every = rows["sft", "", "commonsense+gsm8k", "mean:all"].filters
    assert (every["strict"], every["legacy"]) == (pytest.approx(33 / 2), None)  # mathematics has none here


def test_csv_has_the_columns_of_the_design_in_their_order_and_two_decimals():
    text = to_csv(BOARD, rows_of(full(), grid()).values())
    assert text.splitlines()[0] == (
        "model,family,method,arm,mix,task,split,n_seeds,n_items,accuracy,seed_std,ci_low,ci_high,delta_vs_sft,"
        "delta_ci_low,delta_ci_high,p_value,p_holm,verdict,option_rank,strict,legacy,unparsed_rate,truncated_rate,complete,reported"
    )
    assert text.splitlines()[1] == (
        "qwen2.5-1.5b,qwen2,base,,,boolq,ID,1,200,20.00,,,,-6.00,,,,,,,10.00,,10.00,2.50,true,64.2"
    )
    lines = list(csv.DictReader(io.StringIO(text)))
    assert len(lines) == 2 * (15 + 9)
    assert [line["task"] for line in lines[:24]] == [
        *GROUPS["all"],
        *(f"mean:{group}" for group in GROUPS),
    ]
    empty = ("ci_low", "ci_high", "delta_ci_low", "delta_ci_high", "p_value", "p_holm", "verdict")
    assert {line[name] for line in lines for name in empty} == {""}
    assert list(lines[0]) == [column.name for column in BOARD]
    assert all(column.meaning for column in ROWS)


@given(st.randoms(use_true_random=False))
def test_the_order_of_records_and_their_times_do_not_matter(random):
    cells = full()
    shuffled = [item.model_copy(update={"time_s": random.random(), "provenance": {"t": 1}}) for item in cells]
    random.shuffle(shuffled)
    for layout in (grid(), None):
        expected = to_csv(BOARD, build_rows(cells, read_layout(layout, cells)))
        assert to_csv(BOARD, build_rows(shuffled, read_layout(layout, shuffled))) == expected


def test_no_negative_zero_and_nothing_for_nothing():
    assert number(-0.001) == "0.00"
    assert number(None) == ""
    assert number(12.345678) == "12.35"


@pytest.mark.parametrize("name", ["a,b", 'say "x"', "a|b", "<script>alert(1)</script>", "line\nbreak", "=1+1"])
def test_hostile_names_survive_csv(name: str):
    rows = rows_of([cell(model=name, arm=name)])
    lines = list(csv.DictReader(io.StringIO(to_csv(BOARD, rows.values()))))
    assert {(line["model"], line["arm"]) for line in lines} == {(name, name)}

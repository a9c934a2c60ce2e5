"""Means over the items that count once and were not trained on, and what rows say about the others."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from infosteer_bench.leaderboard.numbers.row import Overlap, Row
from infosteer_bench.leaderboard.numbers.rows import build_rows
from infosteer_bench.leaderboard.store.items import ItemScores
from infosteer_bench.leaderboard.store.layout import read_layout
from infosteer_bench.records import AuditedMix, AuditedTest, DataAudit
from tests.unit.test_leaderboard import COMMONSENSE, MATH, cell, grid


def board_rows(
    audit: DataAudit | None, *, n: int = 10, with_items: bool = True, drop: str = ""
) -> dict[tuple[str, str], Row]:
    """Rows by (method, task) of base, sft and one more, two seeds; item i of a cell is right where `right` says so."""
    cells = [
        cell(
            task,
            100 * float(right(task, method, seed, n).mean()),
            method=method,
            seed=seed,
            n_items=n,
            n_total=n,
            option_rank=30.0,
        )
        for method in ("base", "sft", "infosteer-regularization")
        for task in (*COMMONSENSE, *MATH)
        for seed in ((None,) if method == "base" else (0, 1))
    ]
    items = {
        one.key: ItemScores({"robust": right(one.task, one.method, one.seed, n)}, asked=f"{one.task} {n}")
        for one in cells
        if with_items and one.task != drop
    }
    methods = [{"name": "base", "arm": ""}, {"name": "sft", "arm": ""}, {"name": "infosteer-regularization", "arm": ""}]
    rows = build_rows(cells, read_layout(grid(methods=methods), cells), items, audit)
    return {(row.method, row.task): row for row in rows}


def right(task: str, method: str, seed: int | None, n: int) -> np.ndarray:
    # every cell has a pattern of its own
    start = sum(map(ord, task + method)) + 7 * (seed or 0)
    return np.array([float((start + 13 * i * i) % 5 < 3) for i in range(n)])


def known_overlaps(n: int = 10) -> DataAudit:
    """BoolQ's item 3 stands in mix commonsense; PIQA's item 1 in mix gsm8k; AddSub 0 = SingleEq 4 = MAWPS 9, and MAWPS
    2 = MAWPS 5."""
    tasks = (*COMMONSENSE, *MATH)
    none: dict[str, tuple[int, ...]] = dict.fromkeys(tasks, ())

    def of_mix(exact: dict[str, tuple[int, ...]]) -> AuditedMix:
        places = {**none, **exact}
        return AuditedMix(
            sources={}, max_examples=None, rows=1, held_out=0, exact=places, development=none,
            masked={**places, "boolq": (3, 7)},
        )  # fmt: skip

    return DataAudit(
        tests={task: AuditedTest(sha256="0" * 64, items=n) for task in tasks},
        mixes={"commonsense": of_mix({"boolq": (3,)}), "gsm8k": of_mix({"piqa": (1,)})},
        repeated=((("addsub", 0), ("singleeq", 4), ("mawps", 9)), (("mawps", 2), ("mawps", 5))),
        shared=(),
    )


def expected(method: str, seed: int | None, dropped: dict[str, set[int]], tasks: Iterable[str], n: int = 10) -> float:
    means = [np.delete(right(task, method, seed, n), sorted(dropped.get(task, ()))).mean() for task in tasks]
    return 100 * float(np.mean(means))


REPEATS = {"singleeq": {4}, "mawps": {5, 9}}


def test_means_over_kept_items_leave_out_just_what_is_doubtful():
    rows = board_rows(known_overlaps())
    sft, base = rows["sft", "mean:clean"], rows["base", "mean:clean"]
    dropped = {**REPEATS, "boolq": {3}}  # piqa's item is in a mix that these checkpoints never saw
    tasks = (*COMMONSENSE, *MATH)
    assert sft.by_seed == pytest.approx({seed: expected("sft", seed, dropped, tasks) for seed in (0, 1)})
    assert base.by_seed == pytest.approx({None: expected("base", None, {**dropped, "piqa": {1}}, tasks)})
    assert (sft.n_items, base.n_items) == (150 - 4, 150 - 5)
    maths = rows["sft", "mean:math_dedup"]
    assert maths.by_seed == pytest.approx({seed: expected("sft", seed, REPEATS, MATH) for seed in (0, 1)})
    assert maths.n_items == 70 - 3
    assert maths.by_seed != pytest.approx(rows["sft", "mean:math"].by_seed)
    assert rows["sft", "mean:math"].option_rank == 30
    assert (maths.option_rank, maths.unparsed_rate, maths.truncated_rate) == (None, None, None), "of all items only"
    assert maths.complete
    assert sft.members == tasks


def test_they_are_compared_like_other_means():
    rows = board_rows(known_overlaps())
    method = rows["infosteer-regularization", "mean:math_dedup"]
    assert method.interval is not None
    assert method.versus is not None
    assert method.versus.mean == pytest.approx((method.delta_vs_sft or 0) / 100)
    assert method.verdict in ("win", "tie", "loss")
    assert method.p_holm is not None
    base = rows["base", "mean:clean"]
    assert base.delta_vs_sft is None
    assert "no difference to sft: other items" in base.notes
    assert rows["base", "mean:math_dedup"].delta_vs_sft is not None


def test_rows_say_what_is_doubtful_about_their_items():
    rows = board_rows(known_overlaps())
    assert rows["sft", "boolq"].overlap == Overlap(items=10, exact=1, masked=2, repeated=0)
    assert rows["sft", "piqa"].overlap == Overlap(items=10, exact=0, masked=0, repeated=0)
    assert rows["base", "piqa"].overlap == Overlap(items=10, exact=1, masked=1, repeated=0)
    assert rows["sft", "mawps"].overlap == Overlap(items=10, exact=0, masked=0, repeated=2)
    assert rows["sft", "mean:math"].overlap is None


def test_of_a_limited_run_only_answered_items_count():
    """Of the first five items AddSub's 0 and SingleEq's 4 are copies, and MAWPS's 2 is alone; of the first three
    nothing is doubtful."""
    rows = board_rows(known_overlaps(), n=5)
    assert [rows["sft", task].overlap for task in ("singleeq", "mawps")] == [
        Overlap(items=5, exact=0, masked=0, repeated=1),
        Overlap(items=5, exact=0, masked=0, repeated=0),
    ]
    found = rows["sft", "mean:math_dedup"].by_seed
    assert found == pytest.approx({seed: expected("sft", seed, {"singleeq": {4}}, MATH, 5) for seed in (0, 1)})
    rows = board_rows(known_overlaps(), n=3)
    assert rows["sft", "mean:clean"].by_seed == pytest.approx(rows["sft", "mean:all"].by_seed)
    assert rows["sft", "boolq"].overlap == Overlap(items=3, exact=0, masked=0, repeated=0)


def test_without_an_audit_or_without_items_there_is_no_such_mean():
    for rows in (board_rows(None), board_rows(known_overlaps(), with_items=False)):
        assert not [task for _, task in rows if task in ("mean:clean", "mean:math_dedup")]
    assert all(row.overlap is None for row in board_rows(None).values())


def test_a_task_whose_items_are_not_known_makes_the_mean_partial():
    row = board_rows(known_overlaps(), drop="aqua")["sft", "mean:math_dedup"]
    assert (row.complete, row.notes) == (False, ("without aqua",))


def test_an_audit_of_fewer_items_or_of_no_such_mix_is_not_applied():
    assert not [task for _, task in board_rows(known_overlaps(9)) if task == "mean:clean"]
    audit = known_overlaps()
    rows = board_rows(audit.model_copy(update={"mixes": {"commonsense": audit.mixes["commonsense"]}}))
    assert rows["sft", "mean:clean"].members == COMMONSENSE
    assert rows["sft", "gsm8k"].overlap is None


@settings(max_examples=20)
@given(st.sets(st.integers(0, 9)), st.lists(st.sets(st.tuples(st.sampled_from(MATH), st.integers(0, 9))), max_size=4))
def test_the_first_of_several_copies_stays(in_mix: set[int], same: list[set[tuple[str, int]]]):
    order = {task: place for place, task in enumerate(MATH)}
    used: set[tuple[str, int]] = set()
    copies: list[list[tuple[str, int]]] = []
    for places in same:  # an item asks one question
        group = sorted(places - used, key=lambda one: (order[one[0]], one[1]))
        used |= places
        if len(group) > 1:
            copies.append(group)
    audit = known_overlaps()
    mix = audit.mixes["gsm8k"].model_copy(update={"exact": {"svamp": tuple(sorted(in_mix))}})
    audit = audit.model_copy(update={"repeated": tuple(map(tuple, copies)), "mixes": {**audit.mixes, "gsm8k": mix}})
    kept = {(task, place) for task in MATH for place in range(10)} - {one for group in copies for one in group[1:]}
    rows = board_rows(audit)
    dedup = rows["sft", "mean:math_dedup"]
    left = [task for task in MATH if any(one[0] == task for one in kept)]
    assert dedup.members == tuple(left)
    assert dedup.n_items == len(kept)
    clean = kept - {("svamp", place) for place in in_mix}
    assert rows["sft", "mean:clean"].n_items == len(clean) + 80 - 1

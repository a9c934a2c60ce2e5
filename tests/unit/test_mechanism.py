"""Statistics of key coefficients with known answers, in the records of trained checkpoints, and beside the scores."""

from __future__ import annotations

import json
import math
import random
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from scipy import stats

from infosteer_bench.analysis.mechanism import measure
from infosteer_bench.data.slices import TextSlice
from infosteer_bench.errors import CellFailure
from infosteer_bench.grid import load_grid
from infosteer_bench.leaderboard.numbers import mechanism
from infosteer_bench.leaderboard.numbers.board import Board
from infosteer_bench.leaderboard.numbers.columns import MECHANISM
from infosteer_bench.leaderboard.numbers.statistics import ranks
from infosteer_bench.leaderboard.numbers.table import to_csv
from infosteer_bench.leaderboard.store.compact import BoardRecords, text_files
from infosteer_bench.leaderboard.views.markdown import to_markdown
from infosteer_bench.leaderboard.views.mechanism import correlation_table
from infosteer_bench.memory.statistics import STATISTICS, MagnitudeHistogram, TokenStatistics, knowledge_entropy
from infosteer_bench.models.families import ffn_layers
from infosteer_bench.models.load import load_model
from infosteer_bench.records import CellRecord, CheckpointRecord, digest, read_record
from infosteer_bench.runs.choose import plan_grid
from infosteer_bench.runs.worker import Worker
from tests.gradients import ragged_rows
from tests.tiny import build_data_root

F = 64


def summary(*rows: torch.Tensor) -> dict[str, float]:
    """Statistics of one token per row."""
    found = TokenStatistics(F)
    k = torch.stack(rows)[None]
    found.add(k, torch.ones(k.shape[:2], dtype=torch.bool))
    return found.summary()


def one_hot(place: int) -> torch.Tensor:
    return torch.nn.functional.one_hot(torch.tensor(place), F).float()


def test_uniform_coefficients():
    found = summary(torch.full((F,), -2.5))
    assert found == pytest.approx(
        {
            "entropy_nats": math.log(F),
            "entropy_share": 1.0,
            "effective_memories": F,
            "low_share": 0.0,
            "knowledge_entropy_nats": math.log(F),
            "knowledge_entropy_share": 1.0,
        },
        rel=1e-5,
    )
    assert tuple(found) == STATISTICS == mechanism.STATISTICS


def test_one_memory_alone():
    found = summary(-3 * one_hot(5))
    assert found["entropy_nats"] == found["entropy_share"] == found["knowledge_entropy_nats"] == 0
    assert found["effective_memories"] == 1
    assert found["low_share"] == (F - 1) / F


def test_two_levels():
    """48 memories of weight 1 and 16 of weight 5: p = 1/128 and 5/128."""
    k = torch.ones(F)
    k[::4] = -5
    expected = 48 / 128 * math.log(128) + 80 / 128 * math.log(128 / 5)
    found = summary(k)
    assert found["entropy_nats"] == pytest.approx(expected, rel=1e-6)
    assert found["effective_memories"] == pytest.approx(math.exp(expected), rel=1e-6)
    assert found["low_share"] == 0
    k[1::4] = 0.01  # 16 keys: below a tenth of the mean, 0.1 x (32 + 80 + 0.16) / 64
    assert summary(k)["low_share"] == 0.25


def test_knowledge_entropy_averages_before_the_entropy():
    """Tokens that use one memory each, a different one: no token spreads, all together use every memory."""
    found = summary(*(one_hot(place) for place in range(F)))
    assert found["entropy_nats"] == 0
    assert found["knowledge_entropy_nats"] == pytest.approx(math.log(F), rel=1e-6)
    assert found["knowledge_entropy_share"] == pytest.approx(1.0, rel=1e-6)
    assert knowledge_entropy(torch.tensor([3.0, 1.0])) == pytest.approx(0.75 * math.log(4 / 3) + 0.25 * math.log(4))


def test_padding_does_not_count_and_batches_make_no_difference():
    torch.manual_seed(0)
    k = torch.randn(4, 7, F)
    mask = torch.arange(7)[None] < torch.tensor([7, 5, 2, 1])[:, None]
    whole, parts = TokenStatistics(F), TokenStatistics(F)
    whole.add(torch.where(mask[..., None], k, 1e6), mask)
    for row in range(4):
        parts.add(k[row : row + 1], mask[row : row + 1])
    assert whole.tokens == parts.tokens == 15
    assert whole.summary() == pytest.approx(parts.summary(), rel=1e-6)


def test_no_token_has_no_statistics():
    with pytest.raises(ValueError, match="no token"):
        TokenStatistics(F).summary()
    with pytest.raises(ValueError, match="no coefficient"):
        MagnitudeHistogram().percentile(50)


HEAVY = {
    "lognormal": lambda rng: rng.lognormal(0, 4, (40, 50, F)),
    "cauchy": lambda rng: rng.standard_cauchy((40, 50, F)),
    "pareto": lambda rng: rng.pareto(0.5, (40, 50, F)) + 1,
    "gated": lambda rng: (lambda g, u: g / (1 + np.exp(-g)) * u)(*rng.normal(size=(2, 40, 50, F))),
}


@pytest.mark.parametrize("name", HEAVY)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_streaming_percentiles_of_heavy_tails(name, dtype):
    k = torch.tensor(HEAVY[name](np.random.default_rng(0)), dtype=dtype)
    histogram = MagnitudeHistogram()
    for part in k.split(7):
        histogram.add(part, torch.ones(part.shape[:2], dtype=torch.bool))
    assert histogram.total == k.numel()
    exact = np.sort(k.float().abs().flatten().numpy())
    for tenths in (1, 10, 50, 250, 500, 750, 950, 990, 999):  # numpy's versions round 99.9 % of n up or down
        percent, truth = tenths / 10, exact[-(-tenths * len(exact) // 1000) - 1]
        assert histogram.percentile(percent) == pytest.approx(truth, rel=0.005), percent
        if dtype == torch.float32:
            assert histogram.percentile(percent) == pytest.approx(truth, rel=0.001), percent


def test_regions_of_hand_made_coefficients():
    """Base: 1, 2, ..., 1000. Two levels below and above its percentiles fall into the outer regions, whole."""
    every = torch.ones(1, 1, dtype=torch.bool)
    base, levels = MagnitudeHistogram(), MagnitudeHistogram()
    base.add(torch.arange(1.0, 1001.0)[None, None] * torch.tensor([1.0, -1.0]).repeat(500), every)
    cuts = (base.cut(25), base.cut(75))
    assert base.regions(cuts) == (250, 500, 250)
    assert [base.value(cut) for cut in cuts] == pytest.approx([250, 750], rel=0.005)
    levels.add(torch.tensor([-200.0] * 600 + [900.0] * 399 + [500.0])[None, None], every)
    assert levels.regions(cuts) == (600, 1, 399)
    assert (base + levels).regions(cuts) == (850, 501, 649)


def test_zeros_and_broken_numbers():
    every = torch.ones(1, 1, dtype=torch.bool)
    histogram = MagnitudeHistogram()
    histogram.add(torch.tensor([0.0, -0.0, 0.0, 4.0])[None, None], every)
    assert histogram.percentile(25) == 0
    assert histogram.percentile(99) == pytest.approx(4, rel=0.001)
    with pytest.raises(ValueError, match="percentage"):
        histogram.cut(101)
    for broken in (math.nan, math.inf):
        with pytest.raises(ValueError, match="not finite"):
            MagnitudeHistogram().add(torch.tensor([[[1.0, broken]]]), every)


def text_of(rows: Any) -> TextSlice:
    return TextSlice(tuple(tuple(row) for row in rows), "dev", ("boolq",))


@torch.no_grad()
def test_measure_is_the_definition_on_every_layer(tiny_models):
    """By hooks of this test's own, each row by itself, so that neither padding nor batches can matter."""
    model = load_model(tiny_models["gemma2"], dtype="float32")
    rows = [row["input_ids"] for row in ragged_rows(9)]
    found = measure(model, text_of(rows))
    entropies: dict[int, list[float]] = {0: [], 1: []}
    pooled = {0: torch.zeros(160), 1: torch.zeros(160)}
    low: dict[int, list[float]] = {0: [], 1: []}
    for index, module in enumerate(ffn_layers(model)):

        def read(_, args, index=index):
            a = args[0][0].abs()
            entropies[index] += list(stats.entropy(a.double().numpy(), axis=-1))  # pyright: ignore[reportArgumentType]
            low[index] += (a < 0.1 * a.mean(-1, keepdim=True)).double().mean(-1).tolist()
            pooled[index] += a.sum(0)

        module.register_forward_pre_hook(read)
    for row in rows:
        model(torch.tensor([row]), use_cache=False)
    assert found["slice"]["tokens"] == len(entropies[0]) == sum(map(len, rows))
    for index in (0, 1):
        layer = {name: values[index] for name, values in found["by_layer"].items()}
        assert layer["entropy_nats"] == pytest.approx(np.mean(entropies[index]), rel=1e-4)
        assert layer["effective_memories"] == pytest.approx(np.mean(np.exp(entropies[index])), rel=1e-4)
        assert layer["low_share"] == pytest.approx(np.mean(low[index]), abs=2e-4)
        assert layer["knowledge_entropy_nats"] == pytest.approx(stats.entropy(pooled[index].numpy()), rel=1e-4)
    for name, values in found["by_layer"].items():
        assert found["overall"][name] == pytest.approx(sum(values) / 2, rel=1e-5)
    assert (found["width"], found["n_layers"], found["dtype"]) == (160, 2, "float32")
    json.dumps(found, allow_nan=False)


def test_broken_weights_are_told_not_recorded(tiny_models):
    model = load_model(tiny_models["llama"], dtype="float32")
    model.model.layers[1].mlp.up_proj.weight.data[3] = math.nan
    with pytest.raises(CellFailure, match="entropy_nats is nan"):
        measure(model, text_of([[5, 6, 7]]))


@pytest.fixture(scope="module")
def planned(tiny_models, tmp_path_factory):
    """A plan of base, sft and a strong regularization on a tiny model and invented data."""
    root = build_data_root(tmp_path_factory.mktemp("mechanism") / "data", n_train=150)
    settings = ["train.max_steps=2", "train.max_examples=12", "train.precision=float32", "train.export_dtype=float32"]
    grid = load_grid("laptop", overrides=[*settings, "train.warmup_steps=0", "eval.backend=hf"])
    chosen = {"models": (str(tiny_models["llama"]),), "seeds": (0,)}
    return plan_grid(grid.model_copy(update=chosen), data_root=root, model_root=None, quiet=True)


def worker(planned: Any, folder: Path, said: list[str]) -> Worker:
    plan, roots = planned
    progress = SimpleNamespace(
        activity=lambda text: None, note=lambda text: None, line=lambda text, always=False: said.append(text)
    )
    return Worker(plan, folder, roots, progress)  # type: ignore[arg-type]


def test_records_of_base_and_trained_checkpoints_hold_it(planned, tmp_path):
    said: list[str] = []
    one = worker(planned, tmp_path, said)
    base, *trained = planned[0].checkpoints
    assert base.method.name == "base"
    record = one.checkpoint(base)
    assert set(record.mechanism) == {"commonsense", "gsm8k"}
    sft = next(other for other in trained if other.method.name == "sft" and other.spec.name == "gsm8k")
    torch.manual_seed(5)
    random.seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    entry = one._mechanism.of(base, one.weights_dir(base))["gsm8k"]
    assert torch.equal(torch.rand(3), expected), "measuring leaves the random state alone"
    assert entry == record.mechanism["gsm8k"], "the same weights and text give the same numbers"
    tuned = one.checkpoint(sft)
    assert tuned.status == "success"
    assert tuned.mechanism.keys() == {"gsm8k"}
    assert tuned.mechanism["gsm8k"]["slice"] == record.mechanism["gsm8k"]["slice"]
    assert tuned.mechanism["gsm8k"]["slice"]["part"] == "dev"
    assert 0 < tuned.mechanism["gsm8k"]["slice"]["tokens"] <= 1024
    assert tuned.mechanism["gsm8k"]["overall"] != record.mechanism["gsm8k"]["overall"]
    assert read_record(tmp_path / "checkpoints" / f"{sft.key}.json", CheckpointRecord) == tuned
    measured = measure(load_model(one.weights_dir(sft), dtype="float32"), one._mechanism.text(sft, sft.spec))
    assert tuned.mechanism["gsm8k"] == measured
    assert not [line for line in said if "not measured" in line]


def test_what_cannot_be_measured_costs_no_checkpoint(planned, tmp_path, monkeypatch):
    said: list[str] = []
    one = worker(planned, tmp_path, said)
    base = planned[0].checkpoints[0]
    monkeypatch.setattr(one._mechanism, "of", lambda *_: (_ for _ in ()).throw(CellFailure("no memory\nat all")))
    record = one.checkpoint(base)
    assert record.status == "success"
    assert record.mechanism == {}
    assert said == [f"{base.label}: mechanism not measured: no memory"]


def test_records_of_older_versions_still_read(tmp_path):
    """Without the field they verify, read as not measured, and keep their bytes on a board."""
    record = CheckpointRecord(
        key="old", status="success", identity={}, model="m", family="llama", method="sft", arm="", mix="gsm8k", seed=0
    )
    data = record.model_dump(mode="json", exclude={"mechanism"})
    (tmp_path / "old.json").write_text(json.dumps({**data, "content_digest": digest(data)}))
    read = read_record(tmp_path / "old.json", CheckpointRecord)
    assert read.mechanism == {}
    board = BoardRecords(name="b", grid=None, cells=(), checkpoints=(read,))
    assert "mechanism" not in text_files(board)["records/checkpoints.jsonl"]


# --- beside the scores


def board(changes: dict[tuple[str, int], tuple[float, float]], *, slices: dict[str, str] | None = None) -> BoardRecords:
    """sft at entropy 5 and score 50 for each seed; (arm, seed) -> what another method adds to both."""
    cells, checkpoints = [], []
    seeds = sorted({seed for _, seed in changes})
    wanted = {("", seed): (0.0, 0.0) for seed in seeds} | changes
    for (arm, seed), (entropy, score) in wanted.items():
        method = "infosteer-regularization" if arm else "sft"
        key = f"{method}-{arm}-{seed}"
        values = dict.fromkeys(STATISTICS, 0.5) | {"entropy_nats": 5 + entropy}
        entry = {
            "version": 1,
            "slice": {"digest": (slices or {}).get(arm, "d")},
            "dtype": "float32",
            "width": 160,
            "overall": values,
        }
        common = {"model": "m", "family": "llama", "method": method, "arm": arm, "mix": "gsm8k", "seed": seed}
        checkpoints.append(
            CheckpointRecord(key=key, status="success", identity={}, mechanism={"gsm8k": entry}, **common)
        )
        answered = common | {"checkpoint_key": key, "split": "ID", "engine": "hf", "dtype": "float32", "limit": None}
        for task in ("gsm8k", "svamp"):
            scores = {"task": task, "n_items": 10, "n_total": 10, "exact_match": {"robust": 50 + score}}
            cells.append(CellRecord(key=f"{key}-{task}", status="success", identity={}, **answered, **scores))
    return BoardRecords(name="b", grid=None, cells=tuple(cells), checkpoints=tuple(checkpoints))


CHANGES = {
    ("lambda=0.1", 0): (0.11, 2.0),
    ("lambda=0.1", 1): (0.13, -1.0),
    ("lambda=0.1", 2): (0.10, 4.0),
    ("lambda=-0.1", 0): (-0.20, -3.0),
    ("lambda=-0.1", 1): (-0.25, 0.5),
    ("lambda=-0.1", 2): (-0.22, -3.0),
}


def test_changes_against_sft_and_their_correlation():
    rows = mechanism.mechanism_rows(board(CHANGES))
    assert len(rows) == 9
    changed = {(row.arm, row.seed): row for row in rows if row.arm}
    for place, (entropy, score) in CHANGES.items():
        assert changed[place].entropy_change == pytest.approx(entropy)
        assert changed[place].score_change == pytest.approx(score)
        assert changed[place].score == pytest.approx(50 + score)
    assert all(row.entropy_change is None and row.score_change is None for row in rows if not row.arm)
    (found,) = mechanism.correlations(rows)
    first, second = zip(*CHANGES.values(), strict=True)
    assert (found.model, found.mix, found.n) == ("m", "gsm8k", 6)
    assert found.pearson == pytest.approx(stats.pearsonr(first, second)[0])
    assert found.spearman == pytest.approx(stats.spearmanr(first, second)[0])
    interval = stats.pearsonr(first, second).confidence_interval()
    assert (found.pearson_low, found.pearson_high) == pytest.approx(tuple(interval), abs=1e-6)
    assert found.spearman is not None
    assert found.spearman_low is not None
    assert found.spearman_high is not None
    assert found.spearman_low < found.spearman < found.spearman_high
    # wider than Pearson's of the same size would be (Bonett and Wright 2000)
    width = stats.norm.ppf(0.975) / math.sqrt(3)
    assert math.atanh(found.spearman_high) - math.atanh(found.spearman) > width


def test_the_page_and_the_file_show_it():
    with_data = board(CHANGES)
    page = to_markdown(Board.of(with_data))
    assert "## Mechanism beside score" in page
    assert "| m / gsm8k / infosteer-regularization (lambda=0.1) | 3 | 5.1133 | 0.5000 | +0.1133 |" in page
    assert "| m / gsm8k | 6 | +0." in page
    lines = to_csv(MECHANISM, mechanism.mechanism_rows(with_data)).splitlines()
    assert len(lines) == 10
    assert any(line.endswith(",0.110000,52.00,2.00") for line in lines)


def test_boards_of_older_records_show_nothing():
    full = board(CHANGES)
    old = replace(full, checkpoints=tuple(one.model_copy(update={"mechanism": {}}) for one in full.checkpoints))
    assert mechanism.mechanism_rows(old) == []
    assert "Mechanism" not in to_markdown(Board.of(old))


def test_other_statistics_count_as_not_measured():
    """As another version may have them: one record without a statistic, one without the width."""
    full = board(CHANGES)
    del full.checkpoints[0].mechanism["gsm8k"]["overall"]["entropy_share"]
    del full.checkpoints[1].mechanism["gsm8k"]["width"]
    assert {row.key for row in mechanism.mechanism_rows(full)} == {one.key for one in full.checkpoints[2:]}


def test_a_model_called_all_keeps_its_own_correlation():
    rows = mechanism.mechanism_rows(board(CHANGES))
    named = [replace(row, model="all", mix="all") for row in rows if row.seed != 2]
    found = mechanism.correlations([*rows, *named])
    assert [(one.model, one.mix, one.n) for one in found] == [("m", "gsm8k", 6), ("all", "all", 4), (None, None, 10)]
    assert [line[0] for line in correlation_table(found)][2:] == ["all / all", "all models and mixes"]


def test_other_text_is_not_compared():
    rows = mechanism.mechanism_rows(board(CHANGES, slices={"lambda=0.1": "other"}))
    assert {row.arm for row in rows if row.entropy_change is None} == {"", "lambda=0.1"}
    (found,) = mechanism.correlations(rows)
    assert found.n == 3
    assert found.pearson_low is None, "three checkpoints give no interval"


@pytest.mark.parametrize("changes", [{("x", 0): (0.1, 1.0)}, {("x", seed): (0.1, float(seed)) for seed in range(4)}])
def test_no_correlation_from_too_little(changes):
    rows = mechanism.mechanism_rows(board(changes))
    (found,) = mechanism.correlations(rows)
    assert found.pearson is None
    assert found.spearman is None
    assert correlation_table([found]) == []
    assert ranks([3.0, 1.0, 3.0]) == [2.5, 1.0, 2.5]

"""Did every method train, and did it do something of its own?

A method is broken if it raises, if it leaves the weights as they were, or if it trains like plain `sft`. The last is
seen in the weights: same seed, rows and order, so whatever separates them is the method.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from infosteer_bench.records import CheckpointRecord, read_records
from infosteer_bench.smoke.check import Check, Problems, check

if TYPE_CHECKING:
    from torch import Tensor

    from infosteer_bench.methods.base import Fact, Method
    from infosteer_bench.runs.plan import Plan

    Weights = dict[str, Tensor]

MOVED = 1e-6
"""Least ||w - base|| / ||base||: any training at all."""
APART = 1e-3
"""Least ||w - sft|| / ||sft - base||. On a CPU two runs of the same method give 0; on a GPU, rounding. The methods
here give 0.03 and more."""
ROUNDING = 1e-3
"""Relative; float32 sums taken in another order."""
CURVE = ("loss", "loss_lm", "penalty", "grad_norm", "key_entropy_nats")


@dataclass(frozen=True)
class Trained:
    """One checkpoint that should exist. curve: a dict per optimizer step. folder: its weights."""

    label: str
    method: Method
    n_layers: int
    record: CheckpointRecord | None
    curve: list[dict[str, Any]]
    folder: Path


Group = dict[tuple[str | None, int | None], Trained]
"""A method's checkpoints by mix and seed."""


def check_methods(plan: Plan, run_dir: Path) -> Iterator[Check]:
    """One check per model and method of the plan."""
    from infosteer_bench.models.load import materialize

    records, _ = read_records(run_dir, CheckpointRecord)
    groups: dict[tuple[str, str, str], Group] = {}
    folders = {model.id: materialize(model) for model in plan.inputs.models}
    for planned in plan.checkpoints:
        trained = Trained(
            planned.label,
            planned.method,
            planned.model.n_layers,
            records.get(planned.key),
            read_curve(run_dir / "curves" / f"{planned.key}.jsonl"),
            run_dir / "weights" / planned.key if planned.method.trains else folders[planned.model.id],
        )
        place = (planned.spec.name if planned.spec else None, planned.seed)
        groups.setdefault((planned.model.id, planned.method.name, planned.method.arm), {})[place] = trained
    for (model, name, arm), group in groups.items():
        examine = partial(examine_method, group=group, sft=groups.get((model, "sft", ""), {}), base=folders[model])
        yield check(f"method {name} [{arm}]" if arm else f"method {name}", examine)


def examine_method(problems: Problems, *, group: Group, sft: Group, base: Path) -> str:
    """All checkpoints of one method against the base model's folder and sft's checkpoints at the same places."""
    found = [
        examine_trained(problems, trained, sft=sft.get(place), base=base)
        if trained.method.trains
        else examine_untrained(problems, trained)
        for place, trained in group.items()
        if _succeeded(problems, trained)
    ]
    return "; ".join(found)


def _succeeded(problems: Problems, trained: Trained) -> bool:
    record = trained.record
    if record is None:
        problems.add(f"{trained.label}: no checkpoint was recorded")
    elif record.status != "success":
        problems.add(f"{trained.label}: {record.error}")
    return record is not None and record.status == "success"


def examine_untrained(problems: Problems, trained: Trained) -> str:
    """`base`: what was answered with is the model's folder, as it is now and untouched by all the training."""
    from infosteer_bench.models.load import weight_digest

    assert trained.record is not None
    same = problems.equal(
        "weights of the model's folder, by digest",
        expected=weight_digest(trained.folder),
        got=trained.record.weight_digest,
    )
    problems.equal(f"training of {trained.label}", expected={}, got=trained.record.training)
    return "the model as it came, untouched" if same else ""


def examine_trained(problems: Problems, trained: Trained, *, sft: Trained | None, base: Path) -> str:
    """One checkpoint: its curve, its way from the base model, its distance from sft's."""
    assert trained.record is not None
    numbers = _curve_is_whole(problems, trained)
    before, after = read_weights(base), read_weights(trained.folder)
    moved = distance(after, before) / norm(before)
    problems.more_than(f"{trained.label}: weights' distance from the base model's", bound=MOVED, got=moved)
    text = f"{trained.record.mix}: {len(trained.curve)} steps, weights moved {moved:.1%}"
    if sft is not None and (sft.record is None or sft.record.status != "success"):
        sft = None  # its own check says so
    if sft is not None and sft is not trained:
        _same_work(problems, trained, sft)
        plain = read_weights(sft.folder)
        way = distance(plain, before)
        apart = distance(after, plain) / way if way else math.nan
        what = f"{trained.label}: weights' distance from sft's, as a share of sft's way"
        problems.more_than(what, bound=APART, got=apart)
        text += f", {apart:.1%} of that apart from sft"
    if not numbers:
        return text
    facts = trained.method.curve_facts(trained.curve, sft.curve if sft else None, trained.n_layers)
    return text + _hold(problems, trained.label, facts)


def _curve_is_whole(problems: Problems, trained: Trained) -> bool:
    """One line per optimizer step, finite numbers that add up; returns whether all are numbers."""
    assert trained.record is not None
    label, steps = trained.label, trained.record.training.get("steps", 0)
    problems.more_than(f"{label}: optimizer steps", bound=0, got=steps)
    got = [line.get("step") for line in trained.curve]
    problems.equal(f"{label}: steps in the curve", expected=list(range(1, steps + 1)), got=got)
    numbers = bool(trained.curve)
    for line in trained.curve:
        where = f"{label}: step {line.get('step')}"
        wrong = [name for name in CURVE if not isinstance(line.get(name), float) or not math.isfinite(line[name])]
        if wrong:
            numbers = False
            problems.add(f"{where}: {wrong[0]}: expected a finite number, got {line.get(wrong[0])}")
        else:
            total = line["loss_lm"] + line["penalty"]
            problems.close(f"{where}: loss as its parts' sum", expected=total, got=line["loss"], tolerance=ROUNDING)
    return numbers


def _same_work(problems: Problems, trained: Trained, sft: Trained) -> None:
    """Rows, order, steps and tokens are sft's: what differs is the method alone."""
    ours, plain = trained.record, sft.record
    assert ours is not None
    assert plain is not None
    for kind, names in (("data", ("digest", "rows")), ("training", ("steps", "tokens"))):
        for name in names:
            expected, got = getattr(plain, kind).get(name), getattr(ours, kind).get(name)
            problems.equal(f"{trained.label}: {kind}.{name} as sft's", expected=expected, got=got)


def _hold(problems: Problems, label: str, facts: Iterable[Fact]) -> str:
    """Look at what a method says of its own curve; returns what is worth showing."""
    shown = ""
    for fact in facts:
        what = f"{label}: {fact.what}"
        if fact.above is not None:
            problems.more_than(what, bound=fact.above, got=fact.got)
        elif fact.tolerance:
            assert fact.equals is not None
            problems.close(what, expected=fact.equals, got=fact.got, tolerance=fact.tolerance)
        else:
            problems.equal(what, expected=fact.equals, got=fact.got)
        shown += f", {fact.shown}" if fact.shown else ""
    return shown


def read_curve(path: Path) -> list[dict[str, Any]]:
    """The steps of a curve file; none if it is not there."""
    text = path.read_text(encoding="utf-8") if path.is_file() else ""
    return [json.loads(line) for line in text.splitlines()]


def read_weights(folder: Path) -> Weights:
    """All tensors of a model folder, in float32 on the CPU."""
    from safetensors.torch import load_file

    from infosteer_bench.models.weights import weight_files

    return {name: tensor.float() for file in weight_files(folder) for name, tensor in load_file(file).items()}


def distance(one: Weights, other: Weights) -> float:
    """Euclidean, over all tensors. NaN if a weight is; raises ValueError if the two are not of one shape."""
    shapes = [{name: tuple(tensor.shape) for name, tensor in weights.items()} for weights in (one, other)]
    if shapes[0] != shapes[1]:
        raise ValueError("the two checkpoints hold different tensors")
    return math.sqrt(sum(float((one[name] - other[name]).double().square().sum()) for name in one))


def norm(weights: Weights) -> float:
    """Euclidean length, over all tensors."""
    return math.sqrt(sum(float(tensor.double().square().sum()) for tensor in weights.values()))

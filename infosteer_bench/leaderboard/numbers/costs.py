"""What a method costs beside sft, and what it gains: step time and peak memory from the checkpoints' records.

Costs are ratios to the sft checkpoint of the same model, mix and seed, taken where both were trained on the same kind
of machine with as many ranks; the mean of several is the geometric one, as a ratio and its inverse should cancel.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from infosteer_bench.leaderboard.numbers.row import Row
from infosteer_bench.leaderboard.store.compact import BoardRecords
from infosteer_bench.records import CheckpointRecord

GAIN = "mean:all"
COSTS = ("step_time_s", "peak_memory_bytes")


def cost_rows(board: BoardRecords, rows: Sequence[Row]) -> list[dict[str, Any]]:
    """One per row `mean:all` of a trained method with a cost: sft itself stands at ratio 1 and gain 0.

    Per cost: <name> its mean in its unit, <name>_ratio to sft's. checkpoints: how many were compared.
    """
    trained: dict[tuple[str, str, str], list[CheckpointRecord]] = {}
    for record in board.checkpoints:
        if record.mix is not None:
            trained.setdefault((record.model, record.method, record.arm), []).append(record)
    found: list[dict[str, Any]] = []
    for place, row in enumerate(rows):
        if row.task != GAIN:
            continue
        mixes = {part.mix for part in row.parts}
        own, sft = (
            {(one.mix, one.seed): one for one in trained.get((row.model, method, arm), []) if one.mix in mixes}
            for method, arm in ((row.method, row.arm), ("sft", ""))
        )
        pairs = [(own[key], sft[key]) for key in sorted(own.keys() & sft.keys(), key=str)]
        line: dict[str, Any] = {"row": place, "checkpoints": len(pairs)}
        for name in COSTS:
            both = [
                (one.training[name], other.training[name])
                for one, other in pairs
                if one.training.get(name) and other.training.get(name) and _machine(one) == _machine(other)
            ]
            if both:
                ratio = math.exp(math.fsum(math.log(one / other) for one, other in both) / len(both))
                line |= {
                    name: float(f"{math.fsum(one for one, _ in both) / len(both):.4g}"),
                    f"{name}_ratio": round(ratio, 4),
                }
        if len(line) > 2:
            found.append(line)
    return found


def _machine(record: CheckpointRecord) -> tuple[Any, Any]:
    return record.provenance.get("device"), record.training.get("world_size")

"""The plan: which checkpoints and cells a grid asks for, by key. Pure: same inputs, same plan, nothing touched.

A checkpoint's key covers all that changes weights and nothing else, so one checkpoint serves its tasks. A cell's key
needs the checkpoint's weight digest, known only after training; until then a cell is planned without a key.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from infosteer_bench.data.render import RENDERER_VERSION
from infosteer_bench.data.roots import MINIWORLD
from infosteer_bench.grid import Grid, MixSpec
from infosteer_bench.models.catalog import CATALOG
from infosteer_bench.records import digest

if TYPE_CHECKING:
    from infosteer_bench.data.mixes import Mix
    from infosteer_bench.methods.base import Method
    from infosteer_bench.models.load import ResolvedModel
    from infosteer_bench.runs.inputs import Inputs

_LONGEST = 40
"""Characters of a name within a key: four of them, seed and digests stay below a file system's 255 with any suffix."""


@dataclass(frozen=True)
class PlannedCheckpoint:
    """One (model, method arm, mix, seed); `base` has neither mix nor seed."""

    key: str
    identity: dict[str, Any]
    model: ResolvedModel
    method: Method
    spec: MixSpec | None
    mix: Mix | None
    seed: int | None
    tasks: tuple[str, ...]

    @property
    def label(self) -> str:
        """For people: "smollm2 sft gsm8k seed 0"."""
        arm = f" [{self.method.arm}]" if self.method.arm else ""
        rest = f" {self.spec.name} seed {self.seed}" if self.spec else ""
        return f"{self.model.id} {self.method.name}{arm}{rest}"


@dataclass(frozen=True)
class Plan:
    """All checkpoints of a grid, those of one model together, base first."""

    grid: Grid
    inputs: Inputs
    checkpoints: tuple[PlannedCheckpoint, ...]

    @property
    def n_cells(self) -> int:
        """Cells in all."""
        return sum(len(checkpoint.tasks) for checkpoint in self.checkpoints)


def build_plan(grid: Grid, inputs: Inputs) -> Plan:
    """Expand the grid over its resolved inputs."""
    checkpoints: list[PlannedCheckpoint] = []
    for model in inputs.models:
        for method in inputs.methods:
            if not method.trains:
                checkpoints.append(_checkpoint(grid, model, method, tuple(inputs.tasks)))
                continue
            for spec in inputs.mix_specs:
                served = tuple(task for task in inputs.tasks if task in spec.tasks)
                mix = inputs.mixes[spec.name, model.id]
                for seed in grid.seeds:
                    checkpoints.append(_checkpoint(grid, model, method, served, spec=spec, mix=mix, seed=seed))
    return Plan(grid, inputs, tuple(checkpoints))


def _checkpoint(
    grid: Grid,
    model: ResolvedModel,
    method: Method,
    tasks: tuple[str, ...],
    *,
    spec: MixSpec | None = None,
    mix: Mix | None = None,
    seed: int | None = None,
) -> PlannedCheckpoint:
    identity: dict[str, Any] = {
        "model": {"revision": model.revision, "tokenizer": model.tokenizer_digest},
        "method": method.identity(),
    }
    parts = [model.id, method.name]
    if spec is not None and mix is not None:
        identity |= {
            "mix": {"name": spec.name, "digest": mix.digest},
            "prompt": {**grid.prompt.identity_dict(), "renderer": RENDERER_VERSION},
            "seed": seed,
            "train": grid.train.identity_dict(),
        }
        parts += [spec.name, f"s{seed}"]
    key = "--".join([*(_slug(part) for part in parts), digest(identity, 12)])
    return PlannedCheckpoint(key, identity, model, method, spec, mix, seed, tasks)


def cell_identity(plan: Plan, checkpoint: PlannedCheckpoint, task: str, weight_digest: str) -> dict[str, Any]:
    """All that decides a cell's answers and their scores."""
    info, grid = plan.inputs.tasks[task], plan.grid
    test_file = plan.inputs.test_files.get(task)
    return {
        "checkpoint": checkpoint.key,
        "weights": weight_digest,
        "task": {"name": info.lm_eval_name, "digest": info.digest, "data": test_file.sha256 if test_file else None},
        "prompt": {**grid.prompt.identity_dict(), "renderer": RENDERER_VERSION},
        "generation": {"max_new_tokens": grid.eval.max_new_tokens, "do_sample": False},
        "limit": grid.eval.limit,
        "engine": plan.inputs.engine,
        "dtype": grid.eval.dtype,
    }


def cell_key(checkpoint: str, task: str, identity: dict[str, Any]) -> str:
    """File name of the cell's record, by the checkpoint's key."""
    return f"{checkpoint}--{_slug(task)}--{digest(identity, 12)}"


def task_split(plan: Plan, checkpoint: PlannedCheckpoint, task: str) -> Literal["ID", "OOD"]:
    """ID where the training mix really held the task's own rows (docs/method.md: without HellaSwag's training file
    HellaSwag is not ID in that run).

    For base: as for the mix of this grid that serves the task; its default where none does.
    """
    if checkpoint.mix is not None:
        return "ID" if checkpoint.mix.sources.get(task, {}).get("rows") else "OOD"
    serving = [spec.name for spec in plan.inputs.mix_specs if task in spec.tasks]
    mixes = [
        mix for (name, model), mix in plan.inputs.mixes.items() if name in serving and model == checkpoint.model.id
    ]
    if not mixes:
        return plan.inputs.tasks[task].default_split
    return "ID" if any(mix.sources.get(task, {}).get("rows") for mix in mixes) else "OOD"


def stand_ins(plan: Plan, checkpoint: PlannedCheckpoint, task: str) -> list[str]:
    """Data files behind this cell that differ from upstream's."""
    test_file = plan.inputs.test_files.get(task)
    names = set(checkpoint.mix.stand_ins) if checkpoint.mix else set()
    if test_file is not None and test_file.stand_in:
        names.add(test_file.relative)
    return sorted(names)


def in_miniworld(plan: Plan) -> bool:
    """Whether anything here comes from the embedded world, data or models: every page made from it says so."""
    embedded = {row.id for row in CATALOG.values() if row.folder is not None}
    return plan.grid.data_root == str(MINIWORLD) or any(model.id in embedded for model in plan.inputs.models)


def describe(plan: Plan, command: str) -> dict[str, Any]:
    """The grid as the leaderboard needs it (grid.json): names, arms, seeds, settings; no path."""
    grid = plan.grid
    return {
        "name": grid.name,
        "description": grid.description,
        "command": command,
        "miniworld": in_miniworld(plan),
        "data_root": grid.data_root,  # a name that stands for data of ours, never a folder
        "models": [
            {"id": model.id, "family": model.family.name, "instruct": model.instruct, "parameters": model.parameters}
            for model in plan.inputs.models
        ],
        "methods": [{"name": method.name, "arm": method.arm} for method in plan.inputs.methods],
        "mixes": [
            {"name": spec.name, "tasks": [task for task in plan.inputs.tasks if task in spec.tasks]}
            for spec in plan.inputs.mix_specs
        ],
        "tasks": list(plan.inputs.tasks),
        "seeds": list(grid.seeds),
        "train": grid.train.model_dump(mode="json"),
        "prompt": grid.prompt.model_dump(mode="json"),
        "eval": {**grid.eval.model_dump(mode="json"), "engine": plan.inputs.engine},
    }


def _slug(text: str) -> str:
    """A file-name part: letters, digits, dot, dash; never a way out of the folder, never too long for a file system."""
    plain = re.sub(r"[^A-Za-z0-9.]+", "-", text).strip("-.") or "x"
    return plain if len(plain) <= _LONGEST else f"{plain[: _LONGEST - 9]}-{digest(text, 8)}"

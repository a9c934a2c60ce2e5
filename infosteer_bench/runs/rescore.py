"""Score a run's stored answers again: filters and metrics as they are now, no model, nothing asked.

    outcome = rescore(Path("runs/laptop"), Roots(data_root=...))

A changed filter or metric changes a task's digest and with it the cell's key, so each cell gets a record beside the old
one, which turns stale; the next `run` finds the new ones done. Answers belong to weights and prompts, not to filters.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from infosteer_bench import provenance
from infosteer_bench.data.render import RENDERER_VERSION
from infosteer_bench.data.roots import open_source
from infosteer_bench.errors import UserError
from infosteer_bench.evaluation.evaluate import EvalSettings, TaskResult, evaluate_tasks
from infosteer_bench.evaluation.stored import Answerer, NotStored, stored_lm
from infosteer_bench.grid import EvalConfig, PromptConfig
from infosteer_bench.leaderboard.store.compact import read_run_file
from infosteer_bench.records import (
    CellRecord,
    CheckpointRecord,
    CorruptRecord,
    canonical_json,
    file_sha256,
    read_items,
    read_records,
    samples_path,
    write_items,
    write_sealed,
)
from infosteer_bench.runs.inputs import Roots
from infosteer_bench.runs.lock import locked
from infosteer_bench.runs.plan import cell_key
from infosteer_bench.tasks.catalog import TaskInfo, read_tasks

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


@dataclass
class Rescored:
    """Cells that came out as before, cells that did not (before, after), and why others were left alone."""

    same: int = 0
    changed: list[tuple[CellRecord, CellRecord]] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)


def rescore(
    run_dir: Path,
    roots: Roots,
    *,
    include_path: Path | None = None,
    on_checkpoint: Callable[[int, int], None] | None = None,
) -> Rescored:
    """Score every finished cell that counts in `run_dir` again, and record what changed.

    include_path: the folder of the user's own tasks, if there were any. on_checkpoint: called with (done, total).
    Raises UserError if the folder is no run's or another process writes in it.
    """
    if not (run_dir / "plan.json").is_file():
        raise UserError(f"--runs {run_dir} holds no run", allowed="a run's folder, such as runs/laptop")
    with locked(run_dir):
        current, grid = (read_run_file(run_dir / name) or {} for name in ("plan.json", "grid.json"))
        data_root = roots.data_root or (Path(grid["data_root"]) if grid.get("data_root") else None)
        scorer = _Scorer(run_dir, Roots(data_root, roots.model_root), include_path)
        cells, _ = read_records(run_dir, CellRecord)
        groups = _by_checkpoint([cells[key] for key in current["cells"] if key in cells])
        renamed: dict[str, str] = {}
        for done, group in enumerate(groups.values()):
            for before, after in scorer.score(group):
                renamed[before.key] = after.key
            if on_checkpoint:
                on_checkpoint(done + 1, len(groups))
        current["cells"] = [renamed.get(key, key) for key in current["cells"]]
        write_sealed(run_dir / "plan.json", current)
        return scorer.outcome


def _by_checkpoint(cells: list[CellRecord]) -> dict[str, list[CellRecord]]:
    """Finished cells that were asked alike: one checkpoint, one prompt, one engine, one limit."""
    groups: dict[str, list[CellRecord]] = {}
    for cell in cells:
        if cell.status == "success":
            alike = {name: value for name, value in cell.identity.items() if name != "task"}
            groups.setdefault(canonical_json(alike), []).append(cell)
    return groups


class _Scorer:
    """Keeps the tasks that it built from one checkpoint to the next."""

    def __init__(self, run_dir: Path, roots: Roots, include_path: Path | None) -> None:
        self.run_dir, self.roots, self.include_path = run_dir, roots, include_path
        self.outcome = Rescored()
        self._known = read_tasks(include_path)
        self._source = open_source(roots.data_root)
        self._checkpoints, _ = read_records(run_dir, CheckpointRecord)
        self._built: dict[str, dict[str, Any]] = {}

    def score(self, cells: list[CellRecord]) -> Iterator[tuple[CellRecord, CellRecord]]:
        """Cells that were asked alike: each one that could be scored, before and after."""
        first = cells[0]
        identity = first.identity
        given = {name: value for name, value in identity["prompt"].items() if name != "renderer"}
        asking = EvalSettings(
            EvalConfig(max_new_tokens=identity["generation"]["max_new_tokens"], limit=first.limit),
            PromptConfig(**given),
            self.roots.data_root,
            self.include_path,
        )
        infos: dict[str, TaskInfo] = {}
        for cell in cells:
            problem = self._problem(cell)
            if problem:
                self._failed(cell, problem)
            else:
                infos[cell.task] = self._known[cell.task]
        record = self._checkpoints.get(first.checkpoint_key)
        if record is None:
            for cell in cells:
                self._failed(cell, "its checkpoint's record is missing")
            return
        by_whom = Answerer(first.weight_digest or "", record.runtime, first.engine, first.dtype)
        tokenizer = self._tokenizer(record) if asking.prompt.template == "chat" else None
        lm = stored_lm(self.run_dir, record.key, by_whom, eval_config=asking.eval_config, tokenizer=tokenizer)
        built = self._built.setdefault(canonical_json([given, first.limit]), {})
        results: dict[str, TaskResult | Exception] = (
            dict.fromkeys(infos, NotStored("no answers are stored"))
            if lm is None
            else evaluate_tasks(lm, infos, asking, built=built)
        )
        for cell in cells:
            if cell.task not in infos:
                continue
            result = results[cell.task]
            if isinstance(result, Exception):
                hint = "; `run` asks for them" if isinstance(result, NotStored) else ""
                self._failed(cell, f"{result}{hint}")
            else:
                yield cell, self._recorded(cell, result)

    def _problem(self, cell: CellRecord) -> str | None:
        """What keeps a cell from being scored on what it was asked."""
        info = self._known.get(cell.task)
        if info is None:
            return f"no task {cell.task!r} is known here; --include-path names the folder of your own"
        if cell.identity["prompt"]["renderer"] != RENDERER_VERSION:
            return "its prompts were rendered by another version"
        asked = cell.identity["task"]["data"]
        if info.data_file and self._source.get(info.data_file).sha256 != asked:
            return f"{info.data_file} differs from the one that was asked; --data-root names the folder of that one"
        return None

    def _tokenizer(self, record: CheckpointRecord) -> PreTrainedTokenizerBase:
        from infosteer_bench.models.load import load_tokenizer, materialize, resolve_model

        return load_tokenizer(materialize(resolve_model(record.model, model_root=self.roots.model_root)))

    def _failed(self, cell: CellRecord, why: str) -> None:
        self.outcome.failures.append(f"{cell.key}: not scored again: {why}")

    def _recorded(self, before: CellRecord, result: TaskResult) -> CellRecord:
        """The cell with the task as it is now. The engine's time is the old one: nothing was asked."""
        info = self._known[before.task]
        identity = {**before.identity, "task": {**before.identity["task"], "digest": info.digest}}
        key = cell_key(before.checkpoint_key, before.task, identity)
        scores = {**result.scores(), "time_s": before.time_s}
        if key == before.key and self._holds(before, scores, result.rows):
            self.outcome.same += 1
            return before
        update = {
            **scores,
            "key": key,
            "identity": identity,
            "provenance": provenance.collect(),
            "samples_sha256": write_items(samples_path(self.run_dir, key), result.rows),
        }
        after = before.model_copy(update=update)
        after.save(self.run_dir)
        if self._holds(before, scores, result.rows):
            self.outcome.same += 1
        else:
            self.outcome.changed.append((before, after))
        return after

    def _holds(self, cell: CellRecord, scores: dict[str, Any], rows: list[dict[str, Any]]) -> bool:
        """Whether a cell's record and items say just this."""
        if any(getattr(cell, name) != value for name, value in scores.items()):
            return False
        path = samples_path(self.run_dir, cell.key)
        try:
            return file_sha256(path) == cell.samples_sha256 and read_items(path) == rows
        except (OSError, CorruptRecord):
            return False

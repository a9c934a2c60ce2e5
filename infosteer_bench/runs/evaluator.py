"""Has checkpoints answer their tasks with one live engine, and records a cell for each task.

What is stored already is scored without the model; what is missing is asked as one queue.
"""

from __future__ import annotations

import gc
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from infosteer_bench import provenance
from infosteer_bench.errors import CellFailure, is_disk_full
from infosteer_bench.records import CellRecord, CheckpointRecord, samples_path, write_items
from infosteer_bench.runs.plan import Plan, PlannedCheckpoint, cell_identity, cell_key, stand_ins, task_split

if TYPE_CHECKING:
    from infosteer_bench.evaluation.engine import Engine
    from infosteer_bench.evaluation.evaluate import EvalSettings, TaskResult
    from infosteer_bench.runs.inputs import Roots
    from infosteer_bench.runs.progress import Progress

Failure = Callable[[str, Exception], str]
"""Keeps an exception's story in the log of that name; returns one line."""


class Evaluator:
    """One engine for one plan; it is loaded when first needed and outlives many checkpoints."""

    def __init__(self, plan: Plan, run_dir: Path, roots: Roots, progress: Progress, failure: Failure) -> None:
        self.plan, self.run_dir, self.progress, self.failure = plan, run_dir, progress, failure
        self._data_root = roots.data_root
        self._engine: Engine | None = None
        self._built: dict[str, Any] = {}
        self._load_s = 0.0
        # by architecture, of all engines that this object had one after the other
        self._starts: Counter[str] = Counter()
        self._swaps: Counter[str] = Counter()
        self._served: tuple[str, str] | None = None  # key and architecture of the checkpoint that the engine is for

    def stored(self, planned: PlannedCheckpoint, record: CheckpointRecord, tasks: list[str]) -> Iterator[CellRecord]:
        """A cell for each of `tasks` whose answers are all stored, without the model.

        So a changed filter or a run that was stopped before it wrote its cells needs neither weights nor engine.
        """
        from infosteer_bench.evaluation.answers import answered
        from infosteer_bench.evaluation.evaluate import evaluate_tasks
        from infosteer_bench.evaluation.stored import Answerer, stored_lm
        from infosteer_bench.models.load import load_tokenizer, materialize

        if not answered(self.run_dir, planned.key):
            return
        grid = self.plan.grid
        given = Answerer(record.weight_digest or "", record.runtime, self.plan.inputs.engine, grid.eval.dtype)
        chat = grid.prompt.template == "chat"
        tokenizer = load_tokenizer(materialize(planned.model)) if chat else None
        lm = stored_lm(self.run_dir, planned.key, given, eval_config=grid.eval, tokenizer=tokenizer)
        if lm is None:
            return
        self.progress.activity(f"scoring what {planned.label} answered before")
        results = evaluate_tasks(lm, self._infos(tasks), self._asking(), built=self._built)
        for task, result in results.items():
            if not isinstance(result, Exception):
                yield self._recorded(planned, record, task, result)

    def cells(
        self, planned: PlannedCheckpoint, record: CheckpointRecord, tasks: list[str], weights: Path
    ) -> Iterator[CellRecord]:
        """Answer `tasks` with the checkpoint in the folder `weights` as one queue, then record a cell for each."""
        outcome = self._outcome(planned, record, tasks, weights)
        for task in tasks:
            yield self._recorded(planned, record, task, outcome[task])

    def close(self) -> None:
        """End the engine, if one runs."""
        if self._engine is not None:
            self._engine.close()
            self._engine = self._served = None
            gc.collect()

    def _outcome(
        self, planned: PlannedCheckpoint, record: CheckpointRecord, tasks: list[str], weights: Path
    ) -> dict[str, TaskResult | Exception]:
        """Each task's result, or what kept it from one.

        An engine that fails on the way is asked again for what is missing, anew if it died. If it fails again, each
        task is asked by itself, so that what cannot be answered costs its own cell only.
        """
        outcome: dict[str, TaskResult | Exception] = {}
        for attempt, queue in enumerate([tasks, tasks, *([task] for task in tasks)]):
            left = [task for task in queue if task not in outcome]
            if not left:
                continue
            try:
                engine = self._loaded(planned, record, weights)
            except Exception as error:  # no other task would fare better; the other checkpoints go on
                return dict.fromkeys(tasks, error) | outcome
            try:
                outcome |= self._answers(engine, planned, left)
            except CellFailure as error:
                if attempt > 1:
                    outcome[left[0]] = error
                else:
                    self.progress.line(f"{planned.label}: {error}; asking for what is missing", always=True)
            except Exception as error:
                return dict.fromkeys(tasks, error) | outcome
        return outcome

    def _loaded(self, planned: PlannedCheckpoint, record: CheckpointRecord, weights: Path) -> Engine:
        """The engine with this checkpoint in it, and with the answers it gave before.

        Raises CellFailure if the files are no longer those of the record, or the engine cannot hold them.
        """
        from infosteer_bench.data.render import RENDERER_VERSION
        from infosteer_bench.evaluation.answers import AnswerContext, AnswerStore, answers_path
        from infosteer_bench.evaluation.engine import architecture, make_engine
        from infosteer_bench.models.load import weight_digest

        assert record.weight_digest is not None
        self.progress.activity(f"loading {planned.label}")
        found = weight_digest(weights)
        if found != record.weight_digest:
            raise CellFailure(
                f"the weights in {weights.name} are not those of its record ({found[:12]}, recorded "
                f"{record.weight_digest[:12]}): something else wrote there"
            )
        if self._engine is None:
            self._engine = make_engine(self.plan.inputs.engine, eval_config=self.plan.grid.eval)
        engine, shape = self._engine, architecture(weights)
        self._served = (planned.key, shape)
        started, starts, swaps = time.perf_counter(), engine.engine_starts, engine.engine_swaps
        try:
            engine.load(weights, weight_digest=record.weight_digest, runtime=record.runtime)
        finally:  # an engine that started and was then given up has started
            self._starts[shape] += engine.engine_starts - starts
            self._swaps[shape] += engine.engine_swaps - swaps
        self._load_s = time.perf_counter() - started
        asked = AnswerContext(
            weights=record.weight_digest,
            tokenizer=planned.model.tokenizer_digest,
            renderer=RENDERER_VERSION,
            engine=engine.name,
            dtype=engine.dtype,
            window=engine.lm.max_length,
            runtime=record.runtime,
        )
        path = answers_path(self.run_dir, planned.key, asked)
        if engine.lm.answers is None or engine.lm.answers.path != path:
            engine.lm.answers = AnswerStore(path, asked=asked)
            if engine.lm.answers.n_damaged:
                n = engine.lm.answers.n_damaged
                self.progress.line(f"damaged: {n} line(s) of {path.name} do not verify: asked again", always=True)
        return engine

    def _answers(
        self, engine: Engine, planned: PlannedCheckpoint, tasks: list[str]
    ) -> dict[str, TaskResult | Exception]:
        from infosteer_bench.evaluation.evaluate import evaluate_tasks

        what = tasks[0] if len(tasks) == 1 else f"{len(tasks)} tasks"
        return evaluate_tasks(
            engine.lm,
            self._infos(tasks),
            self._asking(),
            on_progress=lambda done, total: self.progress.activity(f"{planned.label}: {what} {done}/{total}"),
            built=self._built,
        )

    def _infos(self, tasks: list[str]) -> dict[str, Any]:
        return {task: self.plan.inputs.tasks[task] for task in tasks}

    def _asking(self) -> EvalSettings:
        from infosteer_bench.evaluation.evaluate import EvalSettings

        grid = self.plan.grid
        return EvalSettings(
            grid.eval, grid.prompt, self._data_root, Path(grid.include_path) if grid.include_path else None
        )

    def _recorded(
        self, planned: PlannedCheckpoint, record: CheckpointRecord, task: str, result: TaskResult | Exception
    ) -> CellRecord:
        """Record what became of one task."""
        identity = cell_identity(self.plan, planned, task, record.weight_digest or "")
        key = cell_key(planned.key, task, identity)
        fields: dict[str, Any]
        if isinstance(result, Exception):
            if is_disk_full(result):
                raise result  # no cell could be recorded, this failure neither
            fields = {"status": "failed", "error": self.failure(key, result)}
        else:
            sha256 = write_items(samples_path(self.run_dir, key), result.rows)
            fields = {"status": "success", **result.scores(), "samples_sha256": sha256}
        cell = CellRecord(
            key=key,
            identity=identity,
            provenance=provenance.collect(),
            checkpoint_key=planned.key,
            weight_digest=record.weight_digest,
            model=record.model,
            family=record.family,
            method=record.method,
            arm=record.arm,
            mix=record.mix,
            seed=record.seed,
            task=task,
            split=task_split(self.plan, planned, task),
            engine=self.plan.inputs.engine,
            dtype=self.plan.grid.eval.dtype,
            limit=self.plan.grid.eval.limit,
            stand_ins=stand_ins(self.plan, planned, task),
            serving=self._serving(planned),
            **fields,
        )
        cell.save(self.run_dir)
        return cell

    def _serving(self, planned: PlannedCheckpoint) -> dict[str, Any]:
        """See CellRecord.serving; {} for a cell that no engine of this run answered."""
        if self._engine is None or self._served is None or self._served[0] != planned.key:
            return {}
        shape = self._served[1]
        return {
            "engine_starts": self._starts[shape],
            "engine_swaps": self._swaps[shape],
            "shards": self._engine.shards,
            "load_time_s": round(self._load_s, 3),
        }

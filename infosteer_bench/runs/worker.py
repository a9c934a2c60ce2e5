"""One long-lived worker: trains a checkpoint, or answers a checkpoint's tasks, and keeps what it loaded.

Libraries, tasks, mixes and the engine are loaded once and serve all cells (importing transformers and trl costs
5 to 15 s per process, a vLLM engine 40 to 60 s).
"""

from __future__ import annotations

import atexit
import gc
import os
import shutil
import time
import traceback
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from infosteer_bench import provenance
from infosteer_bench.errors import CellFailure
from infosteer_bench.records import (
    CellRecord,
    CheckpointRecord,
    CorruptRecord,
    read_record,
    samples_path,
    write_atomic,
    write_items,
)
from infosteer_bench.runs.plan import Plan, PlannedCheckpoint, cell_identity, cell_key, stand_ins, task_split

if TYPE_CHECKING:
    from infosteer_bench.data.mixes import TokenizedMix
    from infosteer_bench.evaluation.engine import Engine
    from infosteer_bench.evaluation.evaluate import TaskResult
    from infosteer_bench.runs.inputs import Places
    from infosteer_bench.runs.progress import Progress


class Worker:
    """Does one thing at a time, in this process, for one plan and one output folder.

    records: False in the ranks of a launcher that only help to train.
    """

    def __init__(self, plan: Plan, run_dir: Path, places: Places, progress: Progress, *, records: bool = True) -> None:
        self.plan, self.run_dir, self.places, self.progress, self.records = plan, run_dir, places, progress, records
        self._engine: Engine | None = None
        self._mix: tuple[tuple[str, str], TokenizedMix] | None = None
        self._built: dict[str, Any] = {}
        self._load_s = 0.0

    def weights_dir(self, planned: PlannedCheckpoint) -> Path:
        """Where the checkpoint's weights lie; the model's own folder for `base`."""
        from infosteer_bench.models.load import materialize

        return self.run_dir / "weights" / planned.key if planned.method.trains else materialize(planned.model)

    def has_weights(self, planned: PlannedCheckpoint, record: CheckpointRecord) -> bool:
        """Are the recorded weights on disk, byte for byte?"""
        from infosteer_bench.models.load import weight_digest

        if not planned.method.trains:
            return True
        folder = self.weights_dir(planned)
        try:
            return folder.is_dir() and weight_digest(folder) == record.weight_digest
        except Exception:  # a damaged checkpoint is retrained, whatever is wrong with it
            return False

    def checkpoint(self, planned: PlannedCheckpoint) -> CheckpointRecord:
        """Train (or, for `base`, look up) and record. A failure is recorded with its log, and returned."""
        started = time.perf_counter()
        try:
            fields = self._train(planned) if planned.method.trains else self._base(planned)
            record = self._record(planned, status="success", **fields)
        except Exception as error:  # the other checkpoints go on
            if int(os.environ.get("WORLD_SIZE", "1")) > 1:
                raise  # a rank that went on alone would leave the others waiting: the launcher ends them all
            record = self._record(planned, status="failed", error=self._failure(planned.key, error))
        if self.records and (record.status == "success" or not self._has_record(planned)):
            record.save(self.run_dir)
        seconds = time.perf_counter() - started
        if record.status == "success" and planned.method.trains:
            training = record.training
            self.progress.line(
                f"trained {planned.label}: {training['steps']} steps, loss {training['loss_final']}, {seconds:.0f} s"
            )
        elif record.status == "failed":
            self.progress.line(f"FAILED {planned.label}: {record.error}", always=True)
        return record

    def _has_record(self, planned: PlannedCheckpoint) -> bool:
        """Is there a record of an earlier success? Its cells stay valid when a later retraining fails."""
        try:
            path = self.run_dir / CheckpointRecord.FOLDER / f"{planned.key}.json"
            return read_record(path, CheckpointRecord).status == "success"
        except CorruptRecord:
            return False

    def _record(self, planned: PlannedCheckpoint, **fields: Any) -> CheckpointRecord:
        return CheckpointRecord(
            key=planned.key,
            identity=planned.identity,
            provenance=provenance.collect(),
            model=planned.model.id,
            family=planned.model.family.name,
            method=planned.method.name,
            arm=planned.method.arm,
            mix=planned.spec.name if planned.spec else None,
            seed=planned.seed,
            runtime=planned.method.runtime,
            **fields,
        )

    def _base(self, planned: PlannedCheckpoint) -> dict[str, Any]:
        from infosteer_bench.models.load import weight_digest

        self.progress.activity(f"fetching {planned.model.id}")
        return {"weight_digest": weight_digest(self.weights_dir(planned))}

    def _train(self, planned: PlannedCheckpoint) -> dict[str, Any]:
        from infosteer_bench.models.load import materialize, weight_digest
        from infosteer_bench.training.checkpoint import TrainPaths, train_checkpoint

        assert planned.mix is not None
        assert planned.seed is not None
        self.progress.activity(f"fetching {planned.model.id}")
        model_path = materialize(planned.model)
        mix = self._tokenized(planned, model_path)
        self.close_engine()  # training needs the memory
        target = self.weights_dir(planned)
        target.parent.mkdir(parents=True, exist_ok=True)
        result = train_checkpoint(
            model_path=model_path,
            family=planned.model.family,
            method=planned.method,
            mix=mix,
            config=self.plan.grid.train,
            seed=planned.seed,
            paths=TrainPaths(
                weights=target,
                curve=self.run_dir / "curves" / f"{planned.key}.jsonl",
                scratch=self.run_dir / "scratch" / planned.key,
            ),
            on_step=lambda step, steps: self.progress.activity(f"training {planned.label}: step {step}/{steps}"),
        )
        _free_memory()
        for warning in result.warnings:
            self.progress.note(f"{planned.model.id} on {planned.mix.name}: {warning}")
        return {
            "weight_digest": weight_digest(target),
            "path": str(target.relative_to(self.run_dir)),
            "data": {
                "mix": planned.mix.name,
                "digest": planned.mix.digest,
                "sources": planned.mix.sources,
                "missing": list(planned.mix.missing),
                "stand_ins": list(planned.mix.stand_ins),
                "rows": mix.n_rows,
                "dropped_overlong": mix.dropped_overlong,
            },
            "training": {**result.to_dict(), **planned.method.facts(planned.model.n_layers)},
        }

    def _tokenized(self, planned: PlannedCheckpoint, model_path: Path) -> TokenizedMix:
        from infosteer_bench.data.mixes import tokenize_mix
        from infosteer_bench.models.load import load_tokenizer

        assert planned.mix is not None
        wanted = (planned.model.id, planned.mix.digest)
        if self._mix is None or self._mix[0] != wanted:
            train = self.plan.grid.train
            tokenizer = load_tokenizer(model_path)
            mix = tokenize_mix(planned.mix, tokenizer, max_length=train.max_length, overlong=train.overlong)
            self._mix = (wanted, mix)
        return self._mix[1]

    def cells(self, planned: PlannedCheckpoint, record: CheckpointRecord, tasks: list[str]) -> Iterator[CellRecord]:
        """Answer `tasks` with this checkpoint as one queue, then record a cell for each."""
        outcome = self._outcome(planned, record, tasks)
        for task in tasks:
            yield self._answered(planned, record, task, outcome[task])

    def _outcome(
        self, planned: PlannedCheckpoint, record: CheckpointRecord, tasks: list[str]
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
                engine = self._loaded_engine(planned, record)
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

    def _loaded_engine(self, planned: PlannedCheckpoint, record: CheckpointRecord) -> Engine:
        from infosteer_bench.data.render import RENDERER_VERSION
        from infosteer_bench.evaluation.answers import AnswerStore, Asked, answers_path
        from infosteer_bench.evaluation.engine import make_engine

        assert record.weight_digest is not None
        self.progress.activity(f"loading {planned.label}")
        if self._engine is None:
            self._engine = make_engine(self.plan.inputs.engine, eval_config=self.plan.grid.eval)
        engine, started = self._engine, time.perf_counter()
        engine.load(self.weights_dir(planned), weight_digest=record.weight_digest, runtime=record.runtime)
        self._load_s = time.perf_counter() - started
        asked = Asked(
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
        return engine

    def _answers(
        self, engine: Engine, planned: PlannedCheckpoint, tasks: list[str]
    ) -> dict[str, TaskResult | Exception]:
        from infosteer_bench.evaluation.evaluate import Asking, evaluate_tasks

        grid = self.plan.grid
        what = tasks[0] if len(tasks) == 1 else f"{len(tasks)} tasks"
        include = Path(grid.include_path) if grid.include_path else None
        return evaluate_tasks(
            engine.lm,
            {task: self.plan.inputs.tasks[task] for task in tasks},
            Asking(grid.eval, grid.prompt, self.places.data_root, include),
            on_progress=lambda done, total: self.progress.activity(f"{planned.label}: {what} {done}/{total}"),
            built=self._built,
        )

    def _answered(
        self, planned: PlannedCheckpoint, record: CheckpointRecord, task: str, result: TaskResult | Exception
    ) -> CellRecord:
        """Record what became of one task."""
        if isinstance(result, Exception):
            reason = self._failure(f"{planned.key}--{task}", result)
            return self._cell(planned, record, task, status="failed", error=reason)
        key = cell_key(planned, task, cell_identity(self.plan, planned, task, record.weight_digest or ""))
        sha256 = write_items(samples_path(self.run_dir, key), result.rows)
        return self._cell(
            planned,
            record,
            task,
            status="success",
            n_items=result.n_items,
            n_total=result.n_total,
            exact_match=result.exact_match,
            unparsed=result.unparsed,
            truncated=result.truncated,
            option_rank=result.option_rank,
            generated_tokens=result.generated_tokens,
            time_s=round(result.time_s, 3),
            samples_sha256=sha256,
        )

    def _cell(self, planned: PlannedCheckpoint, record: CheckpointRecord, task: str, **fields: Any) -> CellRecord:
        identity = cell_identity(self.plan, planned, task, record.weight_digest or "")
        cell = CellRecord(
            key=cell_key(planned, task, identity),
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
            serving=self._serving(),
            **fields,
        )
        cell.save(self.run_dir)
        return cell

    def _serving(self) -> dict[str, Any]:
        if self._engine is None:
            return {}
        return {
            "engine_starts": self._engine.engine_starts,
            "engine_swaps": self._engine.engine_swaps,
            "load_time_s": round(self._load_s, 3),
        }

    def _failure(self, name: str, error: Exception) -> str:
        """Keep the whole story in a log; return one line that names it."""
        log = self.run_dir / "logs" / f"{name}.log"
        write_atomic(log, "".join(traceback.format_exception(error)))
        text = str(error) if isinstance(error, CellFailure) else f"{type(error).__name__}: {error}"
        first = next(iter(text.strip().splitlines()), type(error).__name__)
        return f"{first[:300]} (log: logs/{log.name})"

    def drop_weights(self, planned: PlannedCheckpoint) -> None:
        """Remove a checkpoint's weights; its record and cells stay."""
        if planned.method.trains:
            shutil.rmtree(self.weights_dir(planned), ignore_errors=True)

    def close_engine(self) -> None:
        """End the engine, if one runs."""
        if self._engine is not None:
            self._engine.close()
            self._engine = None
            gc.collect()


def _free_memory() -> None:
    """Give back what training cached, so that an engine in another process finds it free."""
    import torch

    gc.collect()
    # What is left are the libraries' objects: the several collections per checkpoint need not walk them all again.
    gc.freeze()
    atexit.unregister(gc.unfreeze)
    atexit.register(gc.unfreeze)  # or nanobind takes them for leaks, and says so
    if torch.cuda.is_available():
        torch.cuda.empty_cache()

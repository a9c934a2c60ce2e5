"""One long-lived worker: trains a checkpoint, or has it examined, and keeps what it loaded.

Libraries, tasks, mixes and the engine are loaded once and serve all cells (importing transformers and trl costs
5 to 15 s per process, a vLLM engine 40 to 60 s).
"""

from __future__ import annotations

import atexit
import gc
import os
import time
import traceback
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from infosteer_bench import provenance
from infosteer_bench.errors import CellFailure, is_disk_full
from infosteer_bench.records import (
    CellRecord,
    CheckpointRecord,
    CorruptRecord,
    file_sha256,
    read_record,
    write_atomic,
)
from infosteer_bench.runs.evaluator import Evaluator
from infosteer_bench.runs.mechanism import Mechanism
from infosteer_bench.runs.placement import ranks
from infosteer_bench.runs.plan import Plan, PlannedCheckpoint
from infosteer_bench.runs.storage import CURVES, PASSING, WEIGHTS, drop, file_digests, holds

if TYPE_CHECKING:
    from infosteer_bench.data.mixes import TokenizedMix
    from infosteer_bench.runs.inputs import Roots
    from infosteer_bench.runs.progress import Progress
    from infosteer_bench.training.checkpoint import TrainResult


class Worker:
    """Does one thing at a time, in this process, for one plan and one output folder.

    records: False in the ranks of a launcher that only help to train.
    """

    def __init__(self, plan: Plan, run_dir: Path, roots: Roots, progress: Progress, *, records: bool = True) -> None:
        self.plan, self.run_dir, self.roots, self.progress, self.records = plan, run_dir, roots, progress, records
        self.evaluator = Evaluator(plan, run_dir, roots, progress, self._failure)
        self._mechanism = Mechanism(plan, roots)
        self._mix: tuple[tuple[str, str], TokenizedMix] | None = None

    def weights_dir(self, planned: PlannedCheckpoint) -> Path:
        """Where the checkpoint's weights lie; the model's own folder for `base`."""
        from infosteer_bench.models.load import materialize

        return self.run_dir / WEIGHTS / planned.key if planned.method.trains else materialize(planned.model)

    def has_weights(self, planned: PlannedCheckpoint, record: CheckpointRecord | None) -> bool:
        """Are the recorded weights on disk, byte for byte?"""
        if not planned.method.trains or record is None:
            return not planned.method.trains
        folder = self.weights_dir(planned)
        return folder.is_dir() and holds(folder, record)

    def checkpoint(self, planned: PlannedCheckpoint) -> CheckpointRecord:
        """Train (or, for `base`, look up) and record. A failure is recorded with its log, and returned."""
        started = time.perf_counter()
        try:
            fields = self._train(planned) if planned.method.trains else self._base(planned)
            record = self._record(planned, status="success", **fields)
        except Exception as error:  # the other checkpoints go on
            if int(os.environ.get("WORLD_SIZE", "1")) > 1:
                raise  # a rank that went on alone would leave the others waiting: the launcher ends them all
            if is_disk_full(error):
                raise  # no other checkpoint would fare better
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
        self.close_engine()  # measuring needs the memory
        weights = self.weights_dir(planned)
        return {"weight_digest": weight_digest(weights), "mechanism": self._measured(planned, weights)}

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
        curve = self.run_dir / CURVES / f"{planned.key}.jsonl"
        result = (self._by_ranks(planned) or train_checkpoint)(
            model_path=model_path,
            family=planned.model.family,
            method=planned.method,
            mix=mix,
            config=self.plan.grid.train,
            seed=planned.seed,
            paths=TrainPaths(
                weights=target,
                curve=curve,
                scratch=self.run_dir / "scratch" / planned.key,
            ),
            on_step=lambda step, steps: self.progress.activity(f"training {planned.label}: step {step}/{steps}"),
            on_problem=lambda text: self.progress.line(f"{planned.label}: {text}"),
        )
        _free_memory()
        for warning in result.warnings:
            self.progress.note(f"{planned.model.id} on {planned.mix.name}: {warning}")
        return {
            "weight_digest": weight_digest(target),
            "files": file_digests(target),
            "curve_sha256": file_sha256(curve) if curve.is_file() else None,
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
            "mechanism": self._measured(planned, target),
        }

    def _measured(self, planned: PlannedCheckpoint, weights: Path) -> dict[str, Any]:
        """Key-coefficient statistics for the record; {} where they cannot be had, as scores need none of them."""
        if not self.records:
            return {}
        self.progress.activity(f"measuring {planned.label}")
        try:
            return self._mechanism.of(planned, weights)
        except Exception as error:
            reason = str(error).splitlines()[0] if str(error) else type(error).__name__
            self.progress.line(f"{planned.label}: mechanism not measured: {reason}", always=True)
            return {}
        finally:
            _free_memory()

    def _by_ranks(self, planned: PlannedCheckpoint) -> Callable[..., TrainResult] | None:
        """`train_checkpoint` by several processes, or by one that keeps its weights in main memory; None: neither."""
        from infosteer_bench.training.ranks import train_on_ranks

        grid = self.plan.grid
        if "WORLD_SIZE" in os.environ:  # a launcher has done it
            return None
        number = ranks(self.plan, planned.model)
        if number == 1 and not grid.train.offload:
            return None
        return partial(train_on_ranks, number, offload=grid.train.offload, method_files=grid.method_files)

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
        """Have the checkpoint answer `tasks`; a cell for each."""
        return self.evaluator.cells(planned, record, tasks, self.weights_dir(planned))

    def _failure(self, name: str, error: Exception) -> str:
        """Keep the whole story in a log; return one line that names it."""
        log = self.run_dir / "logs" / f"{name}.log"
        write_atomic(log, "".join(traceback.format_exception(error)))
        text = str(error) if isinstance(error, CellFailure) else f"{type(error).__name__}: {error}"
        first = next(iter(text.strip().splitlines()), type(error).__name__)
        return f"{first[:300]} (log: logs/{log.name})"

    def mark_passing(self, planned: PlannedCheckpoint) -> None:
        """Note that a checkpoint's weights go when its cells are done, for a run that is killed right before that."""
        if planned.method.trains:
            folder = self.weights_dir(planned)
            folder.with_name(folder.name + PASSING).touch()

    def drop_weights(self, planned: PlannedCheckpoint) -> None:
        """Remove a checkpoint's weights; its record and cells stay."""
        if planned.method.trains:
            drop(self.weights_dir(planned))

    def close_engine(self) -> None:
        """End the engine, if one runs."""
        self.evaluator.close()


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

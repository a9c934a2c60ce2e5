"""Find the checkpoints that an analysis is to look at, say what each is, and load it.

    base = find_checkpoint("mini-llama", runs=Path("runs"), model_root=None)
    tuned = find_checkpoint("sft=runs/embedded/weights/mini-llama--sft--...", runs=Path("runs"), model_root=None)
    same_vocabulary(base, tuned)
    model = load(tuned)

A checkpoint is a folder, a catalog id, ORG/NAME, or a key of a run that kept its weights (`run --keep-checkpoints`).
Checkpoints of one label and mix are the seeds of one method.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from infosteer_bench.device import has_cuda
from infosteer_bench.errors import UserError
from infosteer_bench.memory.layers import select_layers
from infosteer_bench.models.catalog import CATALOG
from infosteer_bench.models.load import ResolvedModel, load_model, load_tokenizer, materialize, resolve_model
from infosteer_bench.records import CheckpointRecord, CorruptRecord, read_record

if TYPE_CHECKING:
    from transformers import PreTrainedModel

WEIGHTS = "weights"
"""A run's folder of kept checkpoints; each is named by its record's key."""
_LABELLED = re.compile(r"([^/=]+)=(.+)", re.DOTALL)


@dataclass(frozen=True)
class Checkpoint:
    """One checkpoint to look at.

    label: LABEL of LABEL=CKPT, else its record's method and settings, else the model's own name.
    record: that of the run it lies in; None for any other folder.
    """

    label: str
    resolved: ResolvedModel
    record: CheckpointRecord | None = None

    @property
    def path(self) -> Path:
        """Its folder; downloads what is missing."""
        return materialize(self.resolved)

    @property
    def seed(self) -> int | None:
        """The training seed, where a record tells it."""
        return self.record.seed if self.record else None

    @property
    def mix(self) -> str | None:
        """The training mix, where a record tells it."""
        return self.record.mix if self.record else None


def find_checkpoint(text: str, *, runs: Path, model_root: Path | None) -> Checkpoint:
    """The checkpoint that [LABEL=]CKPT names.

    runs: a run's folder, or the folder of several; keys, or their beginnings, are looked up there.
    Raises UserError if there is none, or it cannot be used.
    """
    given, label = text, None
    labelled = _LABELLED.fullmatch(text)
    if labelled and not Path(text).expanduser().is_dir():
        label, given = labelled[1].strip(), labelled[2]
    folder = Path(given).expanduser()
    if given not in CATALOG and not folder.is_dir():
        folder = _kept(given, runs) or folder
        given = str(folder) if folder.is_dir() else given
    resolved = resolve_model(given, model_root=model_root)
    record = _record_of(folder)
    return Checkpoint(label or (_label(record) if record else resolved.id), resolved, record)


def same_vocabulary(base: Checkpoint, other: Checkpoint) -> None:
    """Raise UserError unless both read text as the same token ids."""
    if base.resolved.tokenizer_digest == other.resolved.tokenizer_digest:
        return
    # other files may still hold the same vocabulary, as when a tokenizer was saved anew
    ours, theirs = (load_tokenizer(one.path) for one in (base, other))
    probe = "Is 12 + 5 = 17? The correct answer is: true\nsolution1"
    if ours.get_vocab() != theirs.get_vocab() or ours(probe)["input_ids"] != theirs(probe)["input_ids"]:
        raise UserError(
            f"{other.label} has another vocabulary than {base.label}: the same text is other tokens to it",
            allowed="checkpoints of one base model",
        )


def load(checkpoint: Checkpoint) -> PreTrainedModel:
    """The model in eval mode: in bfloat16 on a CUDA GPU where there is one, else in float32 on the CPU."""
    model = load_model(checkpoint.path, dtype="bfloat16" if has_cuda() else "float32")
    model.to("cuda" if has_cuda() else "cpu")  # pyright: ignore[reportArgumentType]
    return model


def chosen_layers(text: str, n_layers: int) -> list[int]:
    """Layer indices that --layers names: all, early, middle, late, sums with +, or indices by comma.

    Raises UserError for anything else, and for an index outside 0..n_layers - 1.
    """
    parts = [part.strip() for part in text.split(",")]
    try:
        return select_layers(tuple(map(int, parts)) if all(map(str.isdecimal, parts)) else text, n_layers)
    except ValueError as error:
        raise UserError(
            f"--layers {text}: {error}", allowed=f"all, early, middle, late, or indices within 0..{n_layers - 1}"
        ) from None


def _kept(key: str, runs: Path) -> Path | None:
    """The folder of a run's checkpoint by its key or the beginning of it; None if `key` is no such.

    Raises UserError if it is, and the weights are gone or several begin so.
    """
    if "/" in key or not key:
        return None
    found = sorted({path for place in (runs, *runs.glob("*/")) for path in place.glob("checkpoints/*.json")})
    matching = [path for path in found if path.stem.startswith(key)]
    exact = [path for path in matching if path.stem == key] or matching
    if not exact:
        return None
    if len(exact) > 1:
        names = ", ".join(path.stem for path in exact[:5])
        raise UserError(f"{len(exact)} checkpoints in {runs} begin with {key!r}", allowed=f"one of {names}, ...")
    (path,) = exact
    folder = path.parent.parent / WEIGHTS / path.stem
    if not folder.is_dir():
        raise UserError(f"the weights of {path.stem} were not kept", hint="run its grid again with --keep-checkpoints")
    return folder


def _record_of(folder: Path) -> CheckpointRecord | None:
    """The record beside a run's kept checkpoint; None for any other folder."""
    folder = folder.resolve()
    if folder.parent.name != WEIGHTS:
        return None
    try:
        return read_record(folder.parents[1] / CheckpointRecord.FOLDER / f"{folder.name}.json", CheckpointRecord)
    except CorruptRecord:
        return None


def _label(record: CheckpointRecord) -> str:
    arm = f" ({record.arm})" if record.arm else ""
    return f"{record.method}{arm}"

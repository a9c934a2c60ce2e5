"""Training mixes: rendered rows from one or more sources, a development part held out, tokenised without cutting.

    mix = build_mix(BUILTIN_MIXES["gsm8k"], open_source(root), prompt=PromptConfig(), max_examples=None)
    data = tokenize_mix(mix, tokenizer, max_length=256, overlong="drop")

Held out of every run's training, whatever the seed:
- gsm8k: the last 300 rows of the training file (ReFT's choice);
- each commonsense source: the rows whose instruction's sha256 is 0 modulo 50 (2 %). A rule on the text keeps exact
  duplicates on one side, and does not move when rows are added elsewhere.
A user's own file is used whole: it has no development part.

Rows keep a fixed order, given by a hash of source and position: sources interleave, every seed and every subset
sees the same order, and the rows of `max_examples=100` are the first 100 of those of `max_examples=200`. Exact
duplicate rows are kept, as upstream has them.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from infosteer_bench.benchmark import COMMONSENSE, TASKS
from infosteer_bench.data.render import IGNORE, Renderer, encode_batch
from infosteer_bench.data.sources import GSM8K_TRAIN, DataSource, SourceFile, load_json_records
from infosteer_bench.errors import UserError, unknown_name
from infosteer_bench.grid import MixSpec, PromptConfig
from infosteer_bench.records import digest, file_sha256

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

Part = Literal["train", "dev"]

GSM8K_DEV_ROWS = 300
COMMONSENSE_DEV_MODULUS = 50
SOURCES = (*COMMONSENSE, "gsm8k")
_ORDER_SEED = "infosteer-bench order 1"


@dataclass(frozen=True)
class MixRow:
    """One training example as text (no EOS, no BOS) and the source it came from."""

    prompt: str
    completion: str
    source: str


@dataclass(frozen=True)
class Mix:
    """Rendered rows in their fixed order, and where they came from.

    sources: per source used: rows (in this mix), available (in its file), held_out, sha256, stand_in.
    missing: sources that the data root does not have. stand_ins: data files that differ from upstream.
    digest: over name-free content, so equal rows in equal order give the same digest.
    """

    name: str
    rows: tuple[MixRow, ...]
    sources: dict[str, dict[str, Any]]
    missing: tuple[str, ...]
    digest: str
    stand_ins: tuple[str, ...]


@dataclass
class TokenizedMix:
    """Rows of {"input_ids", "labels"} (lists of equal length), and what was counted on the way.

    dropped_overlong: source -> rows left out for their length; n_label_tokens: tokens that carry loss.
    """

    rows: list[dict[str, list[int]]]
    n_rows: int
    n_tokens: int
    n_label_tokens: int
    dropped_overlong: dict[str, int] = field(default_factory=dict)


def build_mix(
    spec: MixSpec,
    source: DataSource,
    *,
    prompt: PromptConfig,
    max_examples: int | None,
    part: Part = "train",
    tokenizer: PreTrainedTokenizerBase | None = None,
) -> Mix:
    """Read, split, render and order the rows of `spec`. `max_examples` keeps the first rows of the fixed order.

    tokenizer: needed for prompt.template="chat" only.
    Raises UserError for an unknown source, a bad record, and when no source or no row is left.
    """
    renderer = Renderer(prompt, tokenizer)
    rows: list[tuple[str, MixRow]] = []
    sources: dict[str, dict[str, Any]] = {}
    missing: list[str] = []
    stand_ins: list[str] = []
    for name in spec.sources:
        file = source_file(name, source)
        if file is None:
            missing.append(name)
            continue
        records = load_json_records(file)
        chosen, held_out = _split(name, records, part)
        for index, record in chosen:
            try:
                text, completion = _render(name, record, renderer)
            except UserError as error:
                raise UserError(f"{file.path}, record {index + 1}: {error}") from None
            rows.append((_order_key(name, file, index), MixRow(text, completion, name)))
        sources[name] = {
            "rows": 0,
            "available": len(records),
            "held_out": held_out,
            "sha256": file.sha256,
            "stand_in": file.stand_in,
        }
        if file.stand_in and not _is_path(name):
            stand_ins.append(file.relative)
    if not sources:
        raise UserError(
            f"mix {spec.name!r}: none of its sources is in the data root ({', '.join(missing)})",
            hint="give --data-root a folder with their train files, or none to use upstream",
        )
    rows.sort(key=lambda pair: pair[0])
    kept = tuple(row for _, row in rows[:max_examples])
    if not kept:
        raise UserError(f"mix {spec.name!r} has no {part} rows", hint="use sources with more rows")
    for row in kept:
        sources[row.source]["rows"] += 1
    return Mix(spec.name, kept, sources, tuple(missing), _digest(kept), tuple(stand_ins))


def tokenize_mix(mix: Mix, tokenizer: PreTrainedTokenizerBase, *, max_length: int, overlong: str) -> TokenizedMix:
    """Token ids and completion-only labels; a row longer than `max_length` tokens is dropped whole, never cut.

    overlong: "drop" or "error". Raises UserError on the first long row under "error", and if nothing is left.
    """
    encoded = encode_batch(tokenizer, [row.prompt for row in mix.rows], [row.completion for row in mix.rows])
    out = TokenizedMix(rows=[], n_rows=0, n_tokens=0, n_label_tokens=0, dropped_overlong=dict.fromkeys(mix.sources, 0))
    for row, (input_ids, labels) in zip(mix.rows, encoded, strict=True):
        if len(input_ids) > max_length:
            if overlong == "error":
                raise UserError(
                    f"a row of {row.source} has {len(input_ids)} tokens, more than train.max_length={max_length}: "
                    f"{row.prompt[:60]!r}",
                    hint="raise train.max_length, or set train.overlong=drop",
                )
            out.dropped_overlong[row.source] += 1
            continue
        out.rows.append({"input_ids": input_ids, "labels": labels})
        out.n_tokens += len(input_ids)
        out.n_label_tokens += sum(label != IGNORE for label in labels)
    out.n_rows = len(out.rows)
    if not out.rows:
        raise UserError(
            f"mix {mix.name!r}: all {len(mix.rows)} rows are longer than train.max_length={max_length} tokens",
            hint="raise train.max_length",
        )
    return out


def _is_path(name: str) -> bool:
    return name.endswith((".json", ".jsonl"))


def source_file(name: str, source: DataSource) -> SourceFile | None:
    """The training file of a source, or None where the data root lacks it. Raises UserError for a name that is none."""
    if _is_path(name):
        path = Path(name).expanduser()
        if not path.is_file():
            raise UserError(f"mix source {name} does not exist", allowed=f"a .json or .jsonl file, or {SOURCES}")
        return SourceFile(path, name, file_sha256(path), stand_in=False)
    if name not in SOURCES:
        raise unknown_name("mix source", name, SOURCES, hint="or give the path of a .json or .jsonl file")
    relative = GSM8K_TRAIN if name == "gsm8k" else f"dataset/{TASKS[name].folder}/train.json"
    return source.get(relative) if source.has(relative) else None


def _split(name: str, records: list[dict[str, Any]], part: Part) -> tuple[list[tuple[int, dict[str, Any]]], int]:
    """The records of `part` with their positions, and how many rows are held out of training."""
    if name == "gsm8k":
        boundary = len(records) - GSM8K_DEV_ROWS
        held = [index >= boundary for index in range(len(records))]
    elif _is_path(name):
        held = [False] * len(records)
    else:
        held = [in_commonsense_dev(str(record.get("instruction", ""))) for record in records]
    wanted = part == "dev"
    return [(i, record) for i, record in enumerate(records) if held[i] == wanted], sum(held)


def in_commonsense_dev(instruction: str) -> bool:
    """Whether a commonsense training row belongs to the development part, by its text alone."""
    value = int.from_bytes(hashlib.sha256(instruction.strip().encode()).digest()[:8], "big")
    return value % COMMONSENSE_DEV_MODULUS == 0


def _render(name: str, record: dict[str, Any], renderer: Renderer) -> tuple[str, str]:
    if not _is_path(name):
        kind = "number" if name == "gsm8k" else "choice"
        return renderer.prompt(record, kind), renderer.completion(record, kind)
    return _render_own(record, renderer)


def _render_own(record: dict[str, Any], renderer: Renderer) -> tuple[str, str]:
    """A row of a user's own file.

    {prompt, completion}: as written. {question, answer: "... #### n"}: as GSM8K. {instruction, output[, answer]}:
    the instruction and the output as written; with "kind": choice, number or letter, our prompt and form of answer.
    """
    if "prompt" in record:
        texts = (record["prompt"], record.get("completion"))
        if not all(isinstance(text, str) and text for text in texts):
            raise UserError("prompt and completion must both be text")
        return renderer.wrap(texts[0]), str(texts[1])
    kind = record.get("kind", "number" if "question" in record else None)
    if kind is not None:
        return renderer.prompt(record, str(kind)), renderer.completion(record, str(kind))
    if "instruction" not in record:
        raise UserError(
            f"fields {', '.join(record) or 'none'} make no training row",
            allowed="{prompt, completion}, {question, answer} or {instruction, output, answer}",
        )
    output = record.get("output")
    if not isinstance(output, str) or not output.strip():
        return renderer.prompt(record, "choice"), renderer.completion(record, "choice")
    return renderer.prompt(record, "choice"), output.strip()


def _order_key(name: str, file: SourceFile, index: int) -> str:
    # A user's file is known by its content: its place on the disk must not change the order.
    source = file.sha256 if _is_path(name) else name
    return hashlib.sha256(f"{_ORDER_SEED}:{source}:{index}".encode()).hexdigest()


def _digest(rows: tuple[MixRow, ...]) -> str:
    return digest([[row.prompt, row.completion] for row in rows], length=32)

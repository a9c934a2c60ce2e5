"""A test file's records as items of its kind, checked one by one, so that a bad one is told before any training.

for item in read_items(source.get("dataset/boolq/test.json"), "choice"): ...
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from infosteer_bench.cache import remembered_digest
from infosteer_bench.data.sources import SourceFile, load_json_records
from infosteer_bench.errors import UserError
from infosteer_bench.records import digest
from infosteer_bench.tasks.filters import FILTERS_VERSION, AnswerSpec, canonical_answer, options_of


@dataclass(frozen=True)
class Item:
    """One test item: the record as it stands in the file, what kind of answer it asks for, the right one."""

    record: dict[str, Any]
    spec: AnswerSpec
    target: str


def read_items(file: SourceFile, kind: str) -> Iterator[Item]:
    """The items of a test file, in its order. Raises UserError that names the file and the bad record."""
    for number, record in enumerate(load_json_records(file), start=1):
        try:
            yield _item(record, kind)
        except UserError as error:
            raise UserError(f"{file.path}, record {number}: {error}") from None


def check_items(file: SourceFile, kind: str) -> None:
    """Raise UserError if a record of the file is no item of this kind; remembered for as long as the file stays."""
    what = f"{kind} items, filters {FILTERS_VERSION}"
    remembered_digest(what, [file.path], lambda: digest([item.target for item in read_items(file, kind)]))


def _item(record: dict[str, Any], kind: str) -> Item:
    for name in ("instruction", "answer"):
        if not isinstance(record.get(name), str):
            raise UserError(f"no text field {name!r}", allowed="{instruction, answer} as text")
    spec = AnswerSpec(kind, options_of(record["instruction"]) if kind == "choice" else ())
    if kind == "choice" and not spec.options:
        raise UserError("the instruction does not end with its options", allowed="'Answer format: answer1/answer2'")
    target = canonical_answer(record["answer"], spec)
    if target is None:
        raise UserError(
            f"answer {record['answer']!r} is no {kind}",
            allowed="/".join(spec.options) or {"number": "a number", "letter": "A to E"}[kind],
        )
    return Item(record, spec, target)

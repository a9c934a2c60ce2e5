"""A fixed slice of held-out text, the same tokens every time: what analyses read checkpoints on.

    text = development_slice(sources, source, prompt=PromptConfig(), tokenizer=tokenizer, tokens=1024)
    input_ids, mask = pad(text.rows[:8], pad_id)

The rows are those that every mix holds out of training (docs/method.md, "Development split"), prompt and gold
completion as in training. Sources take turns, so that each has its share; within a source the rows stand in the mixes'
own order. A row is taken whole: those that do not fit into what is left of the budget are passed over.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from infosteer_bench.data.mixes import Mix, MixRow, Part, build_mix
from infosteer_bench.data.render import encode_batch
from infosteer_bench.data.sources import DataSource
from infosteer_bench.errors import UserError
from infosteer_bench.grid import MixSpec, PromptConfig
from infosteer_bench.records import digest

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

_SHORTEST = 8
"""Tokens of a short row: so many candidates are looked at that rows of this length would fill the slice."""


@dataclass(frozen=True)
class TextSlice:
    """Rows of token ids, and where they came from: part (dev, or train where a mix has no held-out rows)."""

    rows: tuple[tuple[int, ...], ...]
    part: Part
    sources: tuple[str, ...]

    @property
    def tokens(self) -> int:
        """Tokens of all rows."""
        return sum(map(len, self.rows))

    def facts(self) -> dict[str, Any]:
        """What a record says of it; equal digests mean equal tokens in equal order."""
        return {
            "part": self.part,
            "sources": list(self.sources),
            "rows": len(self.rows),
            "tokens": self.tokens,
            "digest": digest([list(row) for row in self.rows]),
        }


def development_slice(
    sources: Sequence[str],
    source: DataSource,
    *,
    prompt: PromptConfig,
    tokenizer: PreTrainedTokenizerBase,
    tokens: int,
) -> TextSlice:
    """At most `tokens` tokens of the held-out rows of `sources` (names of built-in sources).

    Raises UserError for an unknown source, where none has held-out rows, and where no row is short enough.
    """
    spec = MixSpec(name="development", sources=tuple(sources), tasks=())
    mix = build_mix(spec, source, prompt=prompt, max_examples=None, part="dev", tokenizer=tokenizer)
    return slice_of(mix, tokenizer=tokenizer, tokens=tokens, part="dev")


def slice_of(mix: Mix, *, tokenizer: PreTrainedTokenizerBase, tokens: int, part: Part) -> TextSlice:
    """At most `tokens` tokens of a mix's rows, sources in turn. Raises UserError where no row is short enough."""
    candidates = in_turn(mix.rows)[: 256 + tokens // _SHORTEST]
    encoded = encode_batch(tokenizer, [row.prompt for row in candidates], [row.completion for row in candidates])
    chosen: list[tuple[int, ...]] = []
    used: list[str] = []
    left = tokens
    for row, (input_ids, _) in zip(candidates, encoded, strict=True):
        if len(input_ids) <= left:
            chosen.append(tuple(input_ids))
            used.append(row.source)
            left -= len(input_ids)
    if not chosen:
        shortest = min(len(input_ids) for input_ids, _ in encoded)
        raise UserError(
            f"no row of the text has {tokens} tokens or fewer: the slice would be empty",
            allowed=f"--tokens of {shortest} or more",
        )
    return TextSlice(tuple(chosen), part, tuple(dict.fromkeys(used)))


def in_turn(rows: Iterable[MixRow]) -> list[MixRow]:
    """The first row of every source, then the second of every source, and so on."""
    seen: dict[str, int] = {}
    placed: list[tuple[int, int, MixRow]] = []
    for place, row in enumerate(rows):
        seen[row.source] = seen.get(row.source, -1) + 1
        placed.append((seen[row.source], place, row))
    return [row for _, _, row in sorted(placed, key=lambda entry: entry[:2])]

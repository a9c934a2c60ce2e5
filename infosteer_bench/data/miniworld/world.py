"""The facts of the world: which creature has which value of which relation, and who is asked about it.

    world = make_world(WORLD_SEED)
    world.groups["asked"][0].values["food"]

Three groups of creatures. Every creature of every group stands in the pretraining text with all its facts; only
- `exam` creatures are also subject of exam-like items in the pretraining text,
- `mix` creatures of the fine-tuning mixes,
- `asked` creatures of the test items.
So an asked fact is in the pretraining text and in no fine-tuning mix, and was never asked for before the test.
"""

from __future__ import annotations

import random
from dataclasses import dataclass

from infosteer_bench.data.miniworld.words import CODAS, RELATIONS, SYLLABLES, WORDS, Relation

WORLD_SEED = 20251
GROUP_SIZES = {"exam": 240, "mix": 100, "asked": 100}


@dataclass(frozen=True)
class Creature:
    """name: one invented word; values: relation name -> value; weight: how often texts speak of it, 1.0 to 0.25."""

    name: str
    group: str
    values: dict[str, str]
    weight: float


@dataclass(frozen=True)
class World:
    """All creatures, by group."""

    seed: int
    groups: dict[str, tuple[Creature, ...]]

    @property
    def creatures(self) -> tuple[Creature, ...]:
        """Those of all groups."""
        return tuple(creature for group in self.groups.values() for creature in group)


def make_world(seed: int = WORLD_SEED, sizes: dict[str, int] | None = None) -> World:
    """The world of a seed; values are drawn evenly and independently for each creature and relation."""
    rng = random.Random(f"world {seed}")
    sizes = GROUP_SIZES if sizes is None else sizes
    names = _names(sum(sizes.values()), rng)
    groups: dict[str, tuple[Creature, ...]] = {}
    for group, size in sizes.items():
        columns = {relation.name: _even(relation, size, rng) for relation in RELATIONS}
        groups[group] = tuple(
            Creature(
                names.pop(),
                group,
                {name: column[index] for name, column in columns.items()},
                # A long tail, as in any text: the rarest creatures are met a quarter as often as the commonest.
                weight=0.25 ** (index / max(size - 1, 1)),
            )
            for index in range(size)
        )
    return World(seed, groups)


def _names(count: int, rng: random.Random) -> list[str]:
    """Invented words, none of which stands in the world's texts as another word."""
    names: set[str] = set()
    while len(names) < count:
        names.add("".join(rng.choice(SYLLABLES) for _ in range(2)) + rng.choice(CODAS))
        names -= WORDS
    out = sorted(names)
    rng.shuffle(out)
    return out


def _even(relation: Relation, size: int, rng: random.Random) -> list[str]:
    """`size` values, each of the relation's about equally often, so that no value is a good guess."""
    column = [relation.values[index % len(relation.values)] for index in range(size)]
    rng.shuffle(column)
    return column

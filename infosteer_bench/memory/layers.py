"""Which layers are steered; needs no torch, so that a plan can check it at once."""

from __future__ import annotations


def select_layers(spec: str | tuple[int, ...], n_layers: int) -> list[int]:
    """Layer indices (from 0) for "all", "early", "middle", "late" (thirds, paper App. C), sums such as
    "early+middle", or explicit indices. Thirds of L layers: cut at round(L/3) and round(2L/3).

    Raises ValueError on an unknown word or an index outside 0..L-1.
    """
    if isinstance(spec, tuple):
        outside = [index for index in spec if not 0 <= index < n_layers]
        if outside or not spec or len(set(spec)) != len(spec):
            raise ValueError(f"layers {list(spec)} are not distinct indices within 0..{n_layers - 1}")
        return sorted(spec)
    first, second = round(n_layers / 3), round(2 * n_layers / 3)
    thirds = {
        "all": range(n_layers),
        "early": range(first),
        "middle": range(first, second),
        "late": range(second, n_layers),
    }
    chosen: set[int] = set()
    for word in spec.split("+"):
        if word not in thirds:
            raise ValueError(f"layers {spec!r}: allowed are {', '.join(thirds)}, sums with +, or a list of indices")
        chosen.update(thirds[word])
    return sorted(chosen)

"""Measures a run's checkpoints for their records (`CheckpointRecord.mechanism`), each on the held-out text of its mix.

A base model is measured on the text of every mix of the plan, so that it stands beside each. Text is chosen once per
model and mix. Nothing here touches weights, keys or the random state; what cannot be measured is left out and said.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from infosteer_bench.data.mixes import SOURCES
from infosteer_bench.data.roots import open_source
from infosteer_bench.data.slices import TextSlice, development_slice, slice_of
from infosteer_bench.device import has_cuda
from infosteer_bench.models.load import load_model, load_tokenizer, materialize

if TYPE_CHECKING:
    from infosteer_bench.grid import MixSpec
    from infosteer_bench.runs.inputs import Roots
    from infosteer_bench.runs.plan import Plan, PlannedCheckpoint

TOKENS = 1024
"""Of the slice, at most: a forward of a thousand tokens costs next to nothing beside a training."""


class Mechanism:
    """Text slices of one plan, and what checkpoints do with them."""

    def __init__(self, plan: Plan, roots: Roots) -> None:
        self.plan, self.roots = plan, roots
        self._slices: dict[tuple[str, str], TextSlice] = {}

    def of(self, planned: PlannedCheckpoint, weights: Path) -> dict[str, Any]:
        """Mix name -> what `measure` found of the checkpoint in the folder `weights`; {} where the plan has no mix.

        float32 on the CPU, bfloat16 on a CUDA GPU. Raises what loading, reading or measuring raises.
        """
        import torch

        from infosteer_bench.analysis.mechanism import measure

        specs = self.specs(planned)
        if not specs:
            return {}
        with torch.random.fork_rng(devices=[]):  # models are built on the CPU
            model = load_model(weights, dtype="bfloat16" if has_cuda() else "float32")
            model.to("cuda" if has_cuda() else "cpu")  # pyright: ignore[reportArgumentType]
            return {spec.name: measure(model, self.text(planned, spec)) for spec in specs}

    def specs(self, planned: PlannedCheckpoint) -> tuple[MixSpec, ...]:
        """The mixes whose text is read: its own, or all that the plan trains `base`'s model on."""
        if planned.spec is not None:
            return (planned.spec,)
        return tuple(
            spec for spec in self.plan.inputs.mix_specs if (spec.name, planned.model.id) in self.plan.inputs.mixes
        )

    def text(self, planned: PlannedCheckpoint, spec: MixSpec) -> TextSlice:
        """Held-out rows of the mix's built-in sources; of a mix of the user's own files, which hold none out, the
        first rows that it trains on."""
        place = (planned.model.id, spec.name)
        if place not in self._slices:
            tokenizer = load_tokenizer(materialize(planned.model))
            mix = self.plan.inputs.mixes[spec.name, planned.model.id]
            held_out = [name for name in mix.sources if name in SOURCES and mix.sources[name]["held_out"]]
            if held_out:
                source = open_source(self.roots.data_root)
                prompt = self.plan.grid.prompt
                text = development_slice(held_out, source, prompt=prompt, tokenizer=tokenizer, tokens=TOKENS)
            else:
                text = slice_of(mix, tokenizer=tokenizer, tokens=TOKENS, part="train")
            self._slices[place] = text
        return self._slices[place]

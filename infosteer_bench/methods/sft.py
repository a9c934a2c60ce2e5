"""Plain supervised fine-tuning: the reference that every other method is compared with."""

from __future__ import annotations

from infosteer_bench.methods.base import Curve, Fact, Method, no_penalty


class SupervisedFineTuning(Method):
    """Full fine-tuning on the completion's tokens, nothing else (paper 5.1)."""

    name = "sft"
    summary = "plain supervised fine-tuning"
    colour = "#000000"

    def curve_facts(self, curve: Curve, sft: Curve | None, n_layers: int) -> list[Fact]:  # noqa: ARG002
        """Nothing is added to the loss."""
        return no_penalty(curve)


METHOD = SupervisedFineTuning

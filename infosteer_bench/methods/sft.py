"""Plain supervised fine-tuning: the reference that every other method is compared with."""

from __future__ import annotations

from infosteer_bench.methods.base import Method


class SupervisedFineTuning(Method):
    """Full fine-tuning on the completion's tokens, nothing else (paper 5.1)."""

    name = "sft"
    summary = "plain supervised fine-tuning"


METHOD = SupervisedFineTuning

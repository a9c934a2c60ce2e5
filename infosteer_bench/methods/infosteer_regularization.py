"""InfoSteer, variant 2 (paper 4.2): reward the entropy of the key distribution in the loss."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Literal

from infosteer_bench.errors import UserError
from infosteer_bench.grid import Frozen, identity
from infosteer_bench.methods.base import Curve, Fact, Method
from infosteer_bench.models.families import Family, decoder, ffn_layers

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import PreTrainedModel

    from infosteer_bench.methods.base import Batch


class RegularizationConfig(Frozen):
    """Defaults: paper 5.1 (lambda = 0.01); |k| / sum |k| because k is signed in gated FFNs (ours)."""

    lambda_: float = identity(0.01, alias="lambda", description="weight of the entropy term, per layer")
    normalize: Literal["magnitude", "softmax", "positive"] = identity("magnitude")
    tokens: Literal["all", "completion"] = identity("all", description="all: every token that is not padding")
    average: Literal["after", "before"] = identity(
        "after", description="before: average |k| over tokens, then entropy (knowledge entropy); per micro-batch"
    )
    layers: str | tuple[int, ...] = identity("all", description="all, early, middle, late, sums with +, or indices")


class InfoSteerRegularization(Method):
    """L = L_LM - lambda * sum over layers of the mean over counted tokens of H(k_hat)."""

    name = "infosteer-regularization"
    summary = "InfoSteer: reward the entropy of the key coefficients in the loss"
    colour = "#D55E00"
    Config = RegularizationConfig

    def validate_for(self, n_layers: int) -> None:
        """Raise UserError if `layers` names what the model does not have, or the two averages do not fit."""
        from infosteer_bench.memory.layers import select_layers

        if self.config.average == "before" and self.config.normalize != "magnitude":
            raise UserError(f"method {self.name}: average=before is defined for normalize=magnitude only")
        try:
            select_layers(self.config.layers, n_layers)
        except ValueError as error:
            raise UserError(f"method {self.name}: {error}") from None

    def facts(self, n_layers: int) -> dict[str, float]:
        """lambda times the number of layers: the sum over layers lets lambda's effect grow with depth."""
        from infosteer_bench.memory.layers import select_layers

        return {"lambda_times_layers": self.config.lambda_ * len(select_layers(self.config.layers, n_layers))}

    def curve_facts(self, curve: Curve, sft: Curve | None, n_layers: int) -> list[Fact]:
        """penalty = -lambda x layers x mean entropy, which the curve measures by itself; the forward pass is sft's."""
        from infosteer_bench.memory.layers import select_layers

        chosen, defaults = select_layers(self.config.layers, n_layers), RegularizationConfig()
        if len(chosen) < n_layers or self.config != defaults.model_copy(update={"lambda_": self.config.lambda_}):
            return []  # the curve measures the default's entropy, over all layers
        weight, rounding = self.config.lambda_ * n_layers, 1e-3
        facts: list[Fact] = []
        for line in curve:
            what, penalty = f"step {line['step']}: penalty", line["penalty"]
            facts.append(Fact(f"{what}'s size", abs(penalty), above=0.0))
            wanted = -weight * line["key_entropy_nats"]
            facts.append(Fact(f"{what} (-lambda x layers x entropy)", penalty, equals=wanted, tolerance=rounding))
        if sft:
            what, plain = "first step's language-model loss as sft's", sft[0]["loss_lm"]
            facts.append(Fact(what, curve[0]["loss_lm"], equals=plain, tolerance=rounding))
        return [*facts[:-1], replace(facts[-1], shown=f"penalty {curve[0]['penalty']:.3f}")]

    @contextlib.contextmanager
    def attach(self, model: PreTrainedModel, family: Family) -> Iterator[Any]:  # noqa: ARG002
        """Read every chosen layer's key coefficients; yields the tap."""
        from infosteer_bench.memory.entropy import pooled_magnitudes, with_entropy
        from infosteer_bench.memory.layers import select_layers
        from infosteer_bench.memory.tap import Tap

        config = self.config

        def read(k: Tensor, layer: int, counts: bool) -> tuple[Tensor, Tensor | None]:  # noqa: ARG001
            if config.average == "before":
                return k, pooled_magnitudes(k, self._mask)
            return with_entropy(k, config.normalize, measure=counts)

        modules = ffn_layers(model)
        chosen = {index: modules[index] for index in select_layers(config.layers, len(modules))}
        with Tap(root=decoder(model), layers=chosen, both=read) as tap:
            self._tap = tap
            yield tap

    def token_mask(self, batch: Batch) -> Tensor:
        """(B, T) bool: all tokens that are not padding, or the completion's."""
        return batch["labels"] != -100 if self.config.tokens == "completion" else super().token_mask(batch)

    def before_forward(self, mask: Tensor, *, draw: int) -> None:  # noqa: ARG002
        """Which tokens count, for average=before."""
        self._mask = mask

    def penalty(self, batch: Batch, mask: Tensor) -> Tensor | None:  # noqa: ARG002
        """-lambda * sum over layers and counted tokens of H, a scalar with graph."""
        import torch

        from infosteer_bench.memory.entropy import key_entropy

        readings = torch.stack(list(self._tap.take().values()))  # (L, B, T); before: (L, F)
        if self.config.average == "before":  # one entropy per layer, standing for every token of the micro-batch
            total = key_entropy(readings).sum() * mask.sum()
        else:
            total = torch.where(mask, readings, 0.0).sum()
        return -self.config.lambda_ * total


METHOD = InfoSteerRegularization

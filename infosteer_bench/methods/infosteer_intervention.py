"""InfoSteer, variant 1 (paper 4.2): while training, lift the weakest key coefficients of every token."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, Literal

from infosteer_bench.errors import UserError
from infosteer_bench.grid import Frozen, identity
from infosteer_bench.methods.base import Curve, Fact, Method, no_penalty
from infosteer_bench.models.families import Family, decoder, ffn_layers

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import PreTrainedModel


_WITHOUT_DRAWS = ("none", "largest_keys")


class InterventionConfig(Frozen):
    """Defaults: paper 5.1 (p% = 0.01 read as a fraction, alpha = 1), magnitudes as in knowledge entropy (ours)."""

    fraction: float = identity(0.01, ge=0, le=1, description="share of the F key coefficients that is lifted")
    alpha: float = identity(1.0, description="multiple of the layer's mean coefficient")
    rank_by: Literal["magnitude", "signed"] = identity("magnitude", description="signed: the literal reading")
    value: Literal["mean_magnitude", "signed_mean"] = identity("mean_magnitude", description="signed_mean: literal")
    keep_sign: bool = identity(True)
    detach_value: bool = identity(True, description="no gradient through the mean")
    layers: str | tuple[int, ...] = identity("all", description="all, early, middle, late, sums with +, or indices")
    control: Literal["none", "random_keys", "largest_keys", "random_sign", "noise"] = identity(
        "none", description="other keys, a random sign, or noise of the same length instead"
    )
    apply_at_inference: bool = identity(False, description="also lift when answering")


class InfoSteerIntervention(Method):
    """k_s <- sign(k_s) * alpha * mean |k| for the n = ceil(fraction * F) weakest keys of each token and layer."""

    name = "infosteer-intervention"
    summary = "InfoSteer: lift the weakest key coefficients in the forward pass"
    colour = "#0072B2"
    Config = InterventionConfig

    @property
    def runtime(self) -> dict[str, Any] | None:
        """The settings, where the lift belongs to inference too."""
        return self.identity() if self.config.apply_at_inference else None

    def validate_for(self, n_layers: int) -> None:
        """Raise UserError if `layers` names what the model does not have, or a control cannot be repeated."""
        from infosteer_bench.memory.layers import select_layers

        try:
            select_layers(self.config.layers, n_layers)
        except ValueError as error:
            raise UserError(f"method {self.name}: {error}") from None
        if self.config.apply_at_inference and self.config.control not in _WITHOUT_DRAWS:
            raise UserError(
                f"method {self.name}: control={self.config.control} draws at random, and answers must be repeatable",
                allowed=f"with apply_at_inference, control = {' or '.join(_WITHOUT_DRAWS)}",
            )

    def before_forward(self, mask: Tensor, *, draw: int) -> None:  # noqa: ARG002
        """Which micro-batch the controls draw for."""
        self._draw = draw

    def curve_facts(self, curve: Curve, sft: Curve | None, n_layers: int) -> list[Fact]:  # noqa: ARG002
        """Before any weight differs, the first step's loss or gradient already does."""
        facts = no_penalty(curve)
        if sft:
            change = max(abs(curve[0][name] - sft[0][name]) / abs(sft[0][name]) for name in ("loss_lm", "grad_norm"))
            what = "change of the first step's loss or gradient norm against sft"
            facts.append(Fact(what, change, above=1e-5, shown=f"first step's gradient changed by {change:.1%}"))
        return facts

    @contextlib.contextmanager
    def attach(self, model: PreTrainedModel, family: Family) -> Iterator[Any]:  # noqa: ARG002
        """Edit the input of every chosen `down_proj`; yields the tap."""
        import torch

        from infosteer_bench.memory.intervention import lift_smallest, lifted_count
        from infosteer_bench.memory.layers import select_layers
        from infosteer_bench.memory.tap import Tap

        config = self.config

        def generator(k: Tensor, layer: int) -> torch.Generator | None:
            # made anew in every call: gradient checkpointing calls twice and must see the same draws
            if config.control in _WITHOUT_DRAWS:
                return None
            return torch.Generator(k.device).manual_seed((self._draw + layer) % 2**63)

        def lift(k: Tensor, layer: int) -> Tensor:
            return lift_smallest(
                k,
                n=lifted_count(config.fraction, k.shape[-1]),
                alpha=config.alpha,
                rank_by=config.rank_by,
                value=config.value,
                keep_sign=config.keep_sign,
                detach_value=config.detach_value,
                control=config.control,
                generator=generator(k, layer),
            )

        modules = ffn_layers(model)
        chosen = {index: modules[index] for index in select_layers(config.layers, len(modules))}
        with Tap(root=decoder(model), layers=chosen, edit=lift) as tap:
            yield tap


METHOD = InfoSteerIntervention

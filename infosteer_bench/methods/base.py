"""The contract that every method keeps, and `base`: the model as it comes, trained by nothing.

The trainer knows no method by name. It calls, in this order: `prepare`, `attach` (around the whole training),
per micro-batch `token_mask`, `before_forward` and `penalty`, and at the end `export`. Defaults are plain fine-tuning,
so a new method overrides only what it changes.
"""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from pydantic import ValidationError

from infosteer_bench.errors import UserError, unknown_name
from infosteer_bench.grid import Frozen
from infosteer_bench.records import canonical_json

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import PreTrainedModel

    from infosteer_bench.models.families import Family

    Batch = Mapping[str, Tensor]  # input_ids, attention_mask, labels, each (B, T)


Curve = list[dict[str, Any]]
"""A line per optimizer step: step, loss, loss_lm, penalty, grad_norm, key_entropy_nats."""


@dataclass(frozen=True)
class Fact:
    """A number of a training that has to be `equals` within the relative `tolerance`, or more than `above`.

    shown: words for the report if it holds.
    """

    what: str
    got: float
    equals: float | None = None
    tolerance: float = 0.0
    above: float | None = None
    shown: str = ""


def no_penalty(curve: Curve) -> list[Fact]:
    """Of a method that adds nothing to the loss."""
    return [Fact(f"step {line['step']}: penalty", line["penalty"], equals=0.0) for line in curve]


class NoConfig(Frozen):
    """A method without settings."""


class Method:
    """One way to fine-tune. Subclasses set `name`, `summary`, `Config`, and override what they change.

    version: raised whenever the algorithm changes, so that old checkpoints become stale.
    trains: False for `base`. colour: in figures, as matplotlib reads it; None: one of those that are left.
    """

    name: ClassVar[str]
    summary: ClassVar[str]
    version: ClassVar[int] = 1
    trains: ClassVar[bool] = True
    colour: ClassVar[str | None] = None
    source_digest: ClassVar[str | None] = None  # set for a method from a user's own file or an installed package
    Config: ClassVar[type[Frozen]] = NoConfig

    def __init__(self, config: Frozen | None = None) -> None:
        self.config: Any = config if config is not None else self.Config()

    @classmethod
    def configure(cls, settings: Mapping[str, Any]) -> Method:
        """Build from a grid's settings. Raises UserError naming the wrong field and the allowed ones."""
        try:
            return cls(cls.Config.model_validate(dict(settings)))
        except ValidationError as error:
            first = error.errors()[0]
            field = ".".join(str(part) for part in first["loc"])
            names = [info.alias or name for name, info in cls.Config.model_fields.items()]
            if first["type"] == "extra_forbidden" and names:
                raise unknown_name(f"setting of method {cls.name}", field, names) from None
            raise UserError(
                f"method {cls.name}: setting {field!r}: {first['msg']}, got {str(first.get('input'))[:60]!r}",
                allowed=", ".join(names) or "no settings",
            ) from None

    @property
    def arm(self) -> str:
        """The settings that differ from the defaults, "alpha=2.0,fraction=0.02"; "" for the defaults."""
        defaults = self.Config().model_dump(mode="json", by_alias=True)
        given = self.config.model_dump(mode="json", by_alias=True)
        changed = {name: value for name, value in given.items() if value != defaults[name]}
        return ",".join(f"{name}={_plain(value)}" for name, value in sorted(changed.items()))

    def identity(self) -> dict[str, Any]:
        """What of this method changes weights: name, algorithm version, settings, and a user's own file."""
        own = {"source": self.source_digest} if self.source_digest else {}
        return {"name": self.name, "version": self.version, "settings": self.config.identity_dict(), **own}

    @property
    def runtime(self) -> dict[str, Any] | None:
        """What inference needs beyond a plain checkpoint; None for nothing."""
        return None

    def validate_for(self, n_layers: int) -> None:
        """Raise UserError if the settings cannot apply to a model of this many layers."""

    def facts(self, n_layers: int) -> dict[str, float]:  # noqa: ARG002
        """Numbers worth recording with a checkpoint of this many layers."""
        return {}

    def prepare(self, model: PreTrainedModel, family: Family) -> PreTrainedModel:  # noqa: ARG002
        """Wrap the model or add parameters before the optimizer is built.

        Under an adapter `model` is PEFT's wrapper, which `export` no longer sees: put own parameters on a module
        inside (`families.decoder`), and fold them into the weights, or take them out, in `export`.
        """
        return model

    def attach(self, model: PreTrainedModel, family: Family) -> contextlib.AbstractContextManager[Any]:  # noqa: ARG002
        """Hooks in for the time of training; leaving the context takes them all out."""
        return contextlib.nullcontext()

    def token_mask(self, batch: Batch) -> Tensor:
        """(B, T) bool: the tokens that the penalty counts; by default all that are not padding."""
        return batch["attention_mask"].bool()

    def before_forward(self, mask: Tensor, *, draw: int) -> None:
        """Called before every micro-batch's forward with its `token_mask`.

        draw: a number below 2**63, the same whenever this seed trains this micro-batch, and another for every other:
        seed private generators with it. What is drawn must be drawn alike when gradient checkpointing recomputes.
        """

    def penalty(self, batch: Batch, mask: Tensor) -> Tensor | None:  # noqa: ARG002
        """A scalar *sum* over the tokens of `mask` in this micro-batch, to be added to the loss; None for nothing.

        The trainer divides it by the number of counted tokens of the whole optimizer batch (all micro-batches, all
        ranks), in the scale in which it normalises its own loss.
        """
        return None

    def curve_facts(self, curve: Curve, sft: Curve | None, n_layers: int) -> list[Fact]:  # noqa: ARG002
        """What the curve of a training of one step or more has to show; `smoke` looks at it.

        Exact for no gradient accumulation and an entropy that is measured at every step, as in grid `smoke`.
        sft: the curve of plain fine-tuning on the same rows with the same seed, where there is one.
        """
        return []

    def export(self, model: PreTrainedModel, path: Path, **save_options: Any) -> None:
        """Write a plain Hugging Face checkpoint."""
        model.save_pretrained(path, **save_options)


def _plain(value: Any) -> str:
    return value if isinstance(value, str) else canonical_json(value)


class Base(Method):
    """The pretrained model itself."""

    name = "base"
    summary = "the pretrained model, not fine-tuned"
    trains = False
    colour = "0.45"


METHOD = Base

"""Runs inside vLLM's worker processes: a method that steers while answering, attached to vLLM's own model.

vLLM's models keep the layout of transformers' (decoder, layers, `down_proj`), so a method's `attach` fits both. Whether
its hooks really ran is counted here and asked for after every batch of answers: a kernel that bypassed them, or a graph
captured before them, must fail and not answer as the plain model would.
"""

from __future__ import annotations

import contextlib
from typing import Any


class SteeringExtension:
    """Mixed into vLLM's worker class; the engine calls these by name (`collective_rpc`)."""

    model_runner: Any
    parallel_config: Any
    _steering: contextlib.ExitStack | None = None
    _tap: Any = None

    def steer(self, runtime: dict[str, Any] | None) -> int | None:
        """Attach the method that `runtime` describes (see `Method.runtime`) in place of the one before; None: none.

        Returns how often its hooks have run so far, 0, or None without a method. Raises RuntimeError where the
        coefficients of a token are spread over several workers, and if the method does not count its invocations.
        """
        from infosteer_bench.methods import METHODS
        from infosteer_bench.models.families import family_of

        if self._steering is not None:
            self._steering.close()
        self._steering = self._tap = None
        if runtime is None:
            return None
        shards = self.parallel_config.tensor_parallel_size * self.parallel_config.pipeline_parallel_size
        if shards > 1:
            raise RuntimeError(f"the key coefficients are spread over {shards} workers; steering needs them in one")
        model = self.model_runner.get_model()
        method = METHODS.get(runtime["name"]).configure(runtime["settings"])
        with contextlib.ExitStack() as stack:
            tap = stack.enter_context(method.attach(model, family_of(self.model_runner.model_config.hf_config)))
            if not hasattr(tap, "invocations"):
                raise RuntimeError(f"method {method.name} attaches without an `invocations` counter")
            self._tap, self._steering = tap, stack.pop_all()
        return self.steering_invocations()

    def steering_invocations(self) -> int | None:
        """How often any hook of the attached method ran; None without a method."""
        return None if self._tap is None else self._tap.invocations

"""`profile train`: time, memory and saved tensors of a training step under each method, against plain fine-tuning.

All methods take turns on one model in one process, and a ratio compares neighbours in time: timings of a shared machine
drift by far more than the differences that matter here. Three parts are timed (seconds, forward and backward):

- layers: the decoder layers alone, which is all that a method touches;
- head: the language-model head and its loss, the same for every method;
- step: the whole model, with the optimizer's step.

Shapes: B batch, T tokens, D hidden size, F FFN width, L layers.
"""

from __future__ import annotations

import contextlib
import gc
import platform
import statistics
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from infosteer_bench.device import has_cuda, peak_memory_bytes, reset_peak_memory
from infosteer_bench.methods import METHODS
from infosteer_bench.methods.base import Method
from infosteer_bench.models.families import decoder, family_of
from infosteer_bench.profiling.shapes import shape_config
from infosteer_bench.provenance import commit

if TYPE_CHECKING:
    from transformers import PreTrainedModel

REFERENCE = "sft"
PARTS = ("layers", "step")
STEP_EVERY = 3  # on a CPU whole steps and heads take most of the time and tell least: in round 1 and in every third
CUDA_WARM_UP = 3  # rounds: kernels are compiled, the allocator has its blocks, the clocks are up
CUDA_REPEATS = 5  # runs whose median is one time: they take a fraction of a second, and the processor's jitter is 10 %


@dataclass(frozen=True)
class Setting:
    """What is measured. Defaults: a micro-batch of 1,024 tokens as in the paper's recipe (4 rows of 256).

    precision: "bf16" (autocast over float32 weights), "float32", or None: bf16 on CUDA, float32 on a CPU.
    """

    shape: str = "qwen2.5-1.5b"
    n_layers: int | None = None
    batch_size: int = 4
    tokens: int = 256
    precision: str | None = None
    gradient_checkpointing: bool = True
    rounds: int = 7


@dataclass
class Cost:
    """One method's measurements: seconds per round and part, bytes."""

    times_s: dict[str, list[float]] = field(default_factory=lambda: {part: [] for part in PARTS})
    peak_memory_bytes: int | None = None
    saved_bytes: int = 0

    def add(self, times_s: dict[str, float], peak: int | None) -> None:
        """One round's."""
        for part, seconds in times_s.items():
            self.times_s[part].append(seconds)
        self.peak_memory_bytes = max(filter(None, (peak, self.peak_memory_bytes)), default=None)


def profile_train(
    setting: Setting, methods_settings: dict[str, dict[str, Any]], *, on_progress: Callable[[str], None]
) -> dict[str, Any]:
    """Measure; returns what `--json` writes. Raises UserError for an unknown shape, method or setting.

    methods_settings: method -> the settings that differ from its defaults; `sft` among them.
    """
    config = shape_config(setting.shape, setting.n_layers)
    methods = {name: METHODS.get(name).configure(given) for name, given in methods_settings.items()}
    for method in methods.values():
        method.validate_for(config.num_hidden_layers)
    on_progress(f"random weights of {setting.shape}, {config.num_hidden_layers} layers")
    bench = Bench(config, setting)
    costs = {name: Cost() for name in methods}
    for name, method in methods.items():
        costs[name].saved_bytes = bench.saved_bytes(method)
    head: list[float] = []
    on_cuda = bench.device.type == "cuda"
    for number in range(1 - CUDA_WARM_UP if on_cuda else 0, setting.rounds + 1):  # up to 0 they warm up
        on_progress(f"round {number} of {setting.rounds}" if number > 0 else "warming up")
        whole = on_cuda or number % STEP_EVERY == 0 or number == 1
        if whole:
            head_time = bench.head()
            head += [head_time] if number > 0 else []
        for name in _rotated(list(methods), number):
            gc.collect()  # what another method left in reference cycles is none of this one's
            reset_peak_memory()
            times = {"layers": bench.layers(methods[name])}
            if whole:
                times["step"] = bench.step(methods[name])
            if number > 0:
                costs[name].add(times, peak_memory_bytes())
    return _report(setting, bench, methods, costs, head)


def _rotated(names: list[str], number: int) -> list[str]:
    start = number % len(names)
    return names[start:] + names[:start]


class Bench:
    """One model with random weights, and the parts of a training step on it."""

    def __init__(self, config: Any, setting: Setting) -> None:
        from transformers import AutoModelForCausalLM

        self.setting, self.device = setting, torch.device("cuda" if has_cuda() else "cpu")
        self.precision = setting.precision or ("bf16" if self.device.type == "cuda" else "float32")
        config.architectures = None
        self.family = family_of(config)
        options = {"attn_implementation": self.family.attention} if self.family.attention else {}
        torch.manual_seed(0)
        with torch.device(self.device):
            self.model: PreTrainedModel = AutoModelForCausalLM.from_config(config, dtype=torch.float32, **options)
        self.model.config.use_cache = False
        self.model.train()
        shape = (setting.batch_size, setting.tokens)
        self.ids = torch.randint(config.vocab_size, shape, device=self.device)
        self.mask = torch.ones(shape, dtype=torch.bool, device=self.device)
        self.hidden = torch.randn(*shape, config.hidden_size, device=self.device)
        self.direction = torch.randn_like(self.hidden) / self.mask.sum()
        self.optimizer = torch.optim.AdamW(self.model.parameters(), lr=1e-6)
        self.n_layers, self.ffn_width = config.num_hidden_layers, config.intermediate_size

    def layers(self, method: Method) -> float:
        """Seconds for the decoder layers, forward and backward; the loss is linear in their output."""
        with self._attached(method):
            return self._timed(lambda: self._layers_loss(method).backward())

    def head(self) -> float:
        """Seconds for the language-model head and the cross entropy, forward and backward."""
        hidden = self.hidden.detach().requires_grad_()

        def run() -> None:
            with self._autocast():
                logits = self.model.lm_head(hidden)
                loss = self.model.loss_function(logits, self.ids, self.model.config.vocab_size)
            loss.backward()

        return self._timed(run)

    def step(self, method: Method) -> float:
        """Seconds for a whole optimizer step of one micro-batch."""

        def run() -> None:
            method.before_forward(self.mask, draw=0)
            with self._autocast():
                loss = self.model(input_ids=self.ids, attention_mask=self.mask, labels=self.ids).loss
            (loss + self._penalty(method)).backward()
            self.optimizer.step()

        with self._attached(method):
            return self._timed(run)

    def saved_bytes(self, method: Method) -> int:
        """Bytes of distinct tensors that autograd keeps between forward and backward of the layers (no checkpointing),
        parameters aside. What a function of ours keeps as an attribute of its node counts too."""
        own = {parameter.untyped_storage().data_ptr() for parameter in self.model.parameters()}
        kept: dict[int, Tensor] = {}

        def pack(tensor: Tensor) -> Tensor:
            kept.setdefault(tensor.untyped_storage().data_ptr(), tensor)
            return tensor

        with (
            self._attached(method, checkpointing=False),
            torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor),
        ):
            loss = self._layers_loss(method)
        for tensor in _attributes(loss.grad_fn):
            pack(tensor)
        total = sum(tensor.untyped_storage().nbytes() for place, tensor in kept.items() if place not in own)
        del loss
        return total

    def _layers_loss(self, method: Method) -> Tensor:
        method.before_forward(self.mask, draw=0)
        with self._autocast():
            states = decoder(self.model)(inputs_embeds=self.hidden, attention_mask=self.mask, use_cache=False)
        return (states.last_hidden_state * self.direction).sum() + self._penalty(method)

    def _penalty(self, method: Method) -> Tensor | float:
        batch = {"input_ids": self.ids, "attention_mask": self.mask, "labels": self.ids}
        penalty = method.penalty(batch, self.mask)
        return 0.0 if penalty is None else penalty / self.mask.sum()

    @contextlib.contextmanager
    def _attached(self, method: Method, *, checkpointing: bool | None = None) -> Iterator[None]:
        wanted = self.setting.gradient_checkpointing if checkpointing is None else checkpointing
        # newer transformers warn of the older name
        kind = "activation" if hasattr(self.model, "activation_checkpointing_enable") else "gradient"
        if wanted:
            getattr(self.model, f"{kind}_checkpointing_enable")({"use_reentrant": False})
        else:
            getattr(self.model, f"{kind}_checkpointing_disable")()
        with method.attach(self.model, self.family):
            yield

    def _autocast(self) -> torch.autocast:
        return torch.autocast(self.device.type, dtype=torch.bfloat16, enabled=self.precision == "bf16")

    def _timed(self, run: Callable[[], None]) -> float:
        times: list[float] = []
        gc.disable()
        try:
            for _ in range(CUDA_REPEATS if self.device.type == "cuda" else 1):
                self._wait()
                started = time.perf_counter()
                run()
                self._wait()
                times.append(time.perf_counter() - started)
                self.model.zero_grad(set_to_none=True)
        finally:
            gc.enable()
            self.model.zero_grad(set_to_none=True)
        return statistics.median(times)

    def _wait(self) -> None:
        if self.device.type == "cuda":
            torch.cuda.synchronize()


def _attributes(node: Any) -> Iterator[Tensor]:
    """Tensors among the attributes of a graph's nodes, which hooks of saved tensors do not see."""
    seen, waiting = {node}, [node]
    while waiting:
        node = waiting.pop()
        yield from (value for value in getattr(node, "__dict__", {}).values() if isinstance(value, Tensor))
        following = {other for other, _ in node.next_functions if other is not None} - seen
        seen |= following
        waiting += following


def _report(
    setting: Setting, bench: Bench, methods: dict[str, Method], costs: dict[str, Cost], head: list[float]
) -> dict[str, Any]:
    plain = costs[REFERENCE]
    coefficients = setting.batch_size * setting.tokens * bench.ffn_width * bench.n_layers
    rows = {}
    for name, cost in costs.items():
        ratios = {
            part: [own / other for own, other in zip(cost.times_s[part], plain.times_s[part], strict=True)]
            for part in PARTS
        }
        memory = plain.peak_memory_bytes and cost.peak_memory_bytes
        rows[name] = {
            "arm": methods[name].arm,
            "time_s": {part: round(statistics.median(cost.times_s[part]), 5) for part in PARTS},
            "time_ratio": {part: _spread(ratios[part]) for part in PARTS},
            "peak_memory_bytes": cost.peak_memory_bytes,
            "peak_memory_ratio": round(memory / plain.peak_memory_bytes, 4) if memory else None,  # type: ignore[operator]
            "saved_bytes": cost.saved_bytes,
            "saved_bytes_added": cost.saved_bytes - plain.saved_bytes,
            "saved_share_added": round((cost.saved_bytes - plain.saved_bytes) / (2 * coefficients), 5),
        }
    return {
        "profile": "train",
        **commit(),
        "setting": {
            **asdict(setting),
            "precision": bench.precision,
            "n_layers": bench.n_layers,
            "ffn_width": bench.ffn_width,
        },
        "device": _device_name(bench.device),
        "threads": torch.get_num_threads(),
        "versions": {"torch": torch.__version__, "python": platform.python_version()},
        "head_time_s": round(statistics.median(head), 5),
        "methods": rows,
    }


def _spread(values: list[float]) -> dict[str, float]:
    """Median and quartiles."""
    low, middle, high = statistics.quantiles(values, n=4) if len(values) > 1 else values * 3
    return {"median": round(middle, 4), "q25": round(low, 4), "q75": round(high, 4)}


def _device_name(device: torch.device) -> str:
    if device.type == "cuda":
        return torch.cuda.get_device_name()
    return f"CPU, {torch.get_num_threads()} threads ({platform.machine()})"

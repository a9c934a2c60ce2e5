"""What to run: a grid of models x methods x mixes x seeds x tasks, read from YAML, checked, frozen.

Every field is either *identity* (it changes weights or answers, so it is part of a key) or *runtime*
(it changes only cost or place). The role stands in the field itself; a test refuses a field without one.

    grid = load_grid("laptop", overrides=["train.max_examples=200", "methods.infosteer-intervention.alpha=2"])
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, Literal, get_args

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from infosteer_bench.benchmark import MIXES
from infosteer_bench.errors import UserError, unknown_name
from infosteer_bench.strict_yaml import read_mapping, read_value

GRIDS_DIR = Path(__file__).parent / "grids"


def identity(default: Any = ..., **kwargs: Any) -> Any:
    """A field that changes weights or answers: it enters the key of a checkpoint or cell."""
    return Field(default, json_schema_extra={"role": "identity"}, **kwargs)


def runtime(default: Any = ..., **kwargs: Any) -> Any:
    """A field that changes only cost, place or what is logged: it enters no key."""
    return Field(default, json_schema_extra={"role": "runtime"}, **kwargs)


class Frozen(BaseModel):
    """Base of every config: immutable, and a misspelt field is an error."""

    model_config = ConfigDict(frozen=True, extra="forbid", populate_by_name=True)

    def identity_dict(self) -> dict[str, Any]:
        """The fields whose role is identity, as plain JSON data, nested configs included."""
        plain = self.model_dump(mode="json", by_alias=True)
        out: dict[str, Any] = {}
        for name, field in type(self).model_fields.items():
            extra = field.json_schema_extra
            if isinstance(extra, dict) and extra.get("role") == "identity":
                value, label = getattr(self, name), field.alias or name
                out[label] = value.identity_dict() if isinstance(value, Frozen) else plain[label]
        return out


class LoraSettings(Frozen):
    """Low-rank adapters (LoRA, arXiv 2106.09685, as PEFT has them); merged into the weights on export."""

    rank: int = identity(16, gt=0)
    alpha: float = identity(32.0, gt=0, description="the update is scaled by alpha / rank")
    dropout: float = identity(0.0, ge=0, lt=1)
    targets: Literal["all-linear"] | tuple[str, ...] = identity(
        "all-linear", description="module names such as q_proj; all-linear: every linear layer of the decoder"
    )


Optimizer = Literal[
    "adamw_torch", "adamw_torch_fused", "adamw_8bit", "paged_adamw_8bit", "adamw_torch_8bit", "adafactor", "sgd"
]


class TrainConfig(Frozen):
    """The fine-tuning recipe (paper 5.1 and App. A; what the paper leaves open: docs/method.md)."""

    epochs: float = identity(1.0, gt=0)
    max_steps: int | None = identity(None, gt=0, description="stop after this many optimizer steps; None: all epochs")
    learning_rate: float = identity(5e-5, gt=0)
    warmup_steps: int = identity(100, ge=0)
    weight_decay: float = identity(0.01, ge=0)
    max_grad_norm: float = identity(1.0, gt=0)
    lr_scheduler: Literal["linear", "cosine", "constant", "constant_with_warmup"] = identity("linear")
    optimizer: Optimizer = identity("adamw_torch", description="as transformers names it; 8 bit: a third less memory")
    batch_size: int = identity(4, gt=0, description="rows per device and micro-batch")
    gradient_accumulation: int = identity(16, gt=0)
    max_length: int = identity(256, gt=1, description="tokens of prompt and completion together")
    overlong: Literal["drop", "error"] = identity("drop")
    max_examples: int | None = identity(None, gt=0, description="rows drawn from the mix, the same for every seed")
    completion_only: bool = identity(True, description="loss on the completion's tokens only")
    precision: Literal["float32", "bf16"] = identity("bf16", description="bf16: autocast over float32 master weights")
    export_dtype: Literal["float32", "bfloat16"] = identity("bfloat16")
    adapter: Literal["lora"] | None = identity(None, description="None: full fine-tuning, as in the paper")
    lora: LoraSettings = identity(default_factory=LoraSettings, description="for adapter=lora")
    gradient_checkpointing: bool = runtime(True)
    ranks: int | None = runtime(
        None, gt=0, description="processes per training, a GPU each; None: as many as weights and optimizer need"
    )
    offload: bool = runtime(False, description="GPUs: keep weights and optimizer in main memory (FSDP)")
    save_steps: int | None = runtime(None, gt=0, description="write a resumable training checkpoint every N steps")
    entropy_every: int | None = runtime(10, gt=0, description="measure the key entropy every N steps, for the curve")
    report_to: tuple[str, ...] = runtime((), description="experiment trackers, as transformers names them")


class PromptConfig(Frozen):
    """How a record becomes text; the same renderer serves training and evaluation."""

    template: Literal["plain", "alpaca", "chat"] = identity("plain")
    strip_calculator: bool = identity(True, description="remove GSM8K's <<...>> calculator marks from rationales")


class EvalConfig(Frozen):
    """How checkpoints answer. Greedy decoding throughout (paper App. A)."""

    max_new_tokens: int = identity(256, gt=0)
    limit: int | None = identity(None, gt=0, description="first N items of each task; None: all")
    backend: Literal["auto", "hf", "vllm"] = identity("auto")
    dtype: Literal["float32", "bfloat16"] = identity("bfloat16")
    batch_size: int = runtime(64, gt=0, description="engine hf: rows of a batch, at most")
    batch_tokens: int = runtime(16384, gt=0, description="engine hf: prompt and answer tokens of a batch, at most")
    tensor_parallel: int | None = runtime(
        None, gt=0, description="engine vllm: GPUs that answer together; None: as many as the weights need"
    )


class MethodArm(Frozen):
    """A method with the settings that differ from its defaults."""

    name: str = identity()
    settings: dict[str, Any] = identity(default_factory=dict)


class MixSpec(Frozen):
    """A training mix: which sources it draws from, and which tasks its checkpoints are scored on."""

    name: str = identity()
    sources: tuple[str, ...] = identity(description="names of infosteer_bench.data.mixes, or paths of JSON(L) files")
    tasks: tuple[str, ...] = runtime(description="tasks that checkpoints of this mix answer")


class Grid(Frozen):
    """The whole experiment."""

    name: str = runtime(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")
    description: str = runtime("")
    models: tuple[str, ...] = runtime(description="catalog ids, families, hub ids or paths")
    methods: tuple[MethodArm, ...] = runtime()
    mixes: tuple[MixSpec, ...] = runtime()
    tasks: tuple[str, ...] = runtime(("all",))
    seeds: tuple[int, ...] = runtime((0, 1, 2))
    include_path: str | None = runtime(None, description="folder of further lm-eval task YAMLs")
    method_files: tuple[str, ...] = runtime((), description="Python files with further methods")
    data_root: str | None = runtime(None, description="folder of data, or miniworld; None: upstream (--data-root wins)")
    needs_cuda: bool = runtime(False)
    train: TrainConfig = identity(default_factory=TrainConfig)
    prompt: PromptConfig = identity(default_factory=PromptConfig)
    eval: EvalConfig = identity(default_factory=EvalConfig)

    @field_validator("methods", mode="before")
    @classmethod
    def _methods(cls, value: Any) -> Any:
        """Accept `sft` and `{infosteer-intervention: {alpha: 2}}` beside the full form."""
        return [_arm(item) for item in value] if isinstance(value, list | tuple) else value

    @field_validator("mixes", mode="before")
    @classmethod
    def _mixes(cls, value: Any) -> Any:
        """Accept the name of a built-in mix beside the full form."""
        if not isinstance(value, list | tuple):
            return value
        return [BUILTIN_MIXES[item] if isinstance(item, str) and item in BUILTIN_MIXES else item for item in value]

    @field_validator("seeds", mode="before")
    @classmethod
    def _seeds(cls, value: Any) -> Any:
        whole = isinstance(value, list | tuple) and all(type(seed) is int and seed >= 0 for seed in value)
        if not whole or not value or len(set(value)) != len(value):
            raise ValueError("seeds must be distinct whole numbers of at least 0")
        return value

    @model_validator(mode="after")
    def _distinct(self) -> Grid:
        """What is named twice would count twice, or the second would take the place of the first."""
        _refuse_twice("model", self.models)
        _refuse_twice("mix", [mix.name for mix in self.mixes])
        for mix in self.mixes:
            _refuse_twice(f"source of mix {mix.name}", mix.sources)
        for place, arm in enumerate(self.methods):
            if arm in self.methods[:place]:
                raise ValueError(f"method {arm.name} stands twice with the same settings")
        return self


def _refuse_twice(what: str, names: Sequence[str]) -> None:
    for name, count in Counter(names).items():
        if count > 1:
            raise ValueError(f"{what} {name} stands {count} times")


def _arm(item: Any) -> Any:
    if isinstance(item, str):
        return {"name": item}
    if isinstance(item, dict) and len(item) == 1 and "name" not in item:
        ((name, settings),) = item.items()
        return {"name": name, "settings": settings or {}}
    return item


BUILTIN_MIXES = {name: MixSpec(name=name, sources=sources, tasks=tasks) for name, (sources, tasks) in MIXES.items()}


def grid_names() -> list[str]:
    """Names of the grids that ship with the package."""
    return sorted(path.stem for path in GRIDS_DIR.glob("*.yaml"))


def load_grid(name_or_path: str, overrides: Iterable[str] = ()) -> Grid:
    """Read a shipped grid or a YAML file, apply `key=value` overrides, validate.

    Raises UserError for an unknown grid, a file that is not a grid, and an unknown or wrong setting.
    """
    path = Path(name_or_path)
    if path.suffix not in (".yaml", ".yml"):
        path = GRIDS_DIR / f"{name_or_path}.yaml"
        if name_or_path not in grid_names():
            raise unknown_name("grid", name_or_path, grid_names(), hint="or give the path of a .yaml file")
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise UserError(f"grid file {name_or_path} cannot be read: {error.strerror}") from None
    except UnicodeDecodeError:
        raise UserError(f"grid file {name_or_path} is not UTF-8 text") from None
    data = read_mapping(text, f"grid file {name_or_path}")
    data.setdefault("name", path.stem)
    for text in overrides:
        apply_override(data, text)
    return _validated(data, origin=f"grid {name_or_path}")


def _validated(data: dict[str, Any], origin: str) -> Grid:
    try:
        return Grid.model_validate(data)
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(str(part) for part in first["loc"])
        if first["type"] == "extra_forbidden":
            raise unknown_name(f"setting of {origin}", place, _settings(first["loc"])) from None
        if not place:  # of the grid as a whole
            raise UserError(f"{origin}: {first['msg'].removeprefix('Value error, ')}") from None
        got = "" if first["type"] == "missing" else f", got {str(first.get('input'))[:80]!r}"
        raise UserError(f"{origin}: {place}: {first['msg'].removeprefix('Value error, ')}{got}") from None


def _settings(location: tuple[Any, ...]) -> list[str]:
    """What might have stood at a place of a grid, as it is written there."""
    kind: Any = Grid
    for part in location[:-1]:
        kind = get_args(kind)[0] if isinstance(part, int) else kind.model_fields[part].annotation
    above = ".".join(map(str, location[:-1]))
    return [f"{above}.{name}" if above else name for name in kind.model_fields]


def apply_override(data: dict[str, Any], text: str) -> None:
    """Apply one `key=value`; the value is read as YAML, `methods.NAME.FIELD=VALUE` reaches into an arm."""
    key, equals, raw = text.partition("=")
    parts = key.strip().split(".")
    if not equals or not all(parts):
        raise UserError(f"--set {text!r} is not of the form key=value", hint="for example --set train.max_steps=10")
    value = read_value(raw, f"--set {text!r}")
    if isinstance(value, str):  # YAML 1.1 reads 5e-5 as text; a number was meant
        try:
            value = float(value)
        except ValueError:
            pass
    if parts[0] == "methods" and len(parts) == 3:
        arms = [_arm(item) for item in data.get("methods", [])]
        chosen = [arm for arm in arms if isinstance(arm, dict) and arm.get("name") == parts[1]]
        if not chosen:
            raise unknown_name("method of this grid", parts[1], [str(arm.get("name")) for arm in arms])
        for arm in chosen:
            arm["settings"] = {**arm.get("settings", {}), parts[2]: value}
        data["methods"] = arms
        return
    node = data
    for part in parts[:-1]:
        node = node.setdefault(part, {})
        if not isinstance(node, dict):
            raise UserError(f"--set {text!r}: {part!r} holds no settings")
    node[parts[-1]] = value

"""Which tasks there are: the 15 of the paper from tasks/*.yaml, and the user's own YAMLs beside them.

tasks = read_tasks(include_path=None)             # every YAML read strictly; nothing heavy is imported
names = select_tasks(["ood", "boolq"], tasks)     # short names, in the order of docs/method.md's table
task = build_task(tasks["boolq"], data_root=Path("data"))    # the lm_eval Task that plain lm_eval would run
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from infosteer_bench.benchmark import GROUPS, TYPES
from infosteer_bench.errors import UserError, unknown_name
from infosteer_bench.grid import PromptConfig
from infosteer_bench.records import digest, file_sha256
from infosteer_bench.strict_yaml import Document, read_document, show
from infosteer_bench.tasks.filters import FILTERS_VERSION, KINDS
from infosteer_bench.tasks.schema import (
    GROUP_FIELDS,
    OUTPUT_TYPES,
    TASK_FIELDS,
    check_fields,
    check_generation,
    check_scoring,
    require,
    unknown_key,
)

if TYPE_CHECKING:
    from lm_eval.api.task import Task
    from transformers import PreTrainedTokenizerBase

PREFIX = "infosteer_"


@dataclass(frozen=True)
class TaskInfo:
    """One task as its YAML describes it.

    data_file: relative to the data root; None for a user's own task, which names its data itself.
    digest: over the resolved YAML and, for tasks with our filters, their version. Equal digests mean equal tasks.
    """

    name: str
    lm_eval_name: str
    path: Path
    kind: Literal["choice", "number", "letter", "other"]
    type: str
    default_split: Literal["ID", "OOD"]
    data_file: str | None
    digest: str
    version: int


def tasks_dir() -> Path:
    """The folder of the 15 YAMLs: inside the installed package, or the repository's tasks/."""
    package = Path(__file__).resolve().parent.parent
    shipped = package / "_tasks"
    return shipped if shipped.is_dir() else package.parent / "tasks"


_OUR_CLASS = "infosteer_bench.tasks.lm_eval_hooks.GeneratedAnswerTask"


def read_tasks(include_path: Path | None = None) -> dict[str, TaskInfo]:
    """All tasks by short name: ours in their order, then those of `include_path` by name.

    Raises UserError, with file and line, for a YAML that is broken in any way, and for a task name used twice.
    """
    ours = _read_folder(tasks_dir())
    order = {name: place for place, name in enumerate(GROUPS["all"])}
    tasks = {info.name: info for info in sorted(ours, key=lambda info: (order.get(info.name, len(order)), info.name))}
    if include_path is None:
        return tasks
    if not include_path.is_dir():
        raise UserError(f"include path {include_path} is not a folder", allowed="a folder of lm-eval task YAMLs")
    theirs = _read_folder(include_path)
    if not theirs:
        raise UserError(f"include path {include_path} holds no task YAML", allowed="*.yaml with a key 'task'")
    for info in sorted(theirs, key=lambda info: info.name):
        if info.name in tasks:
            raise _used_twice(info.lm_eval_name, tasks[info.name].path, info.path)
        tasks[info.name] = info
    return tasks


def _used_twice(name: str, first: Path, second: Path) -> UserError:
    line = read_document(second).lines.get("task", (second, 1))[1]
    return UserError(
        f"{show(second)}, line {line}: task name {name!r} is already taken by {show(first)}", hint="rename one of them"
    )


def _read_folder(folder: Path) -> list[TaskInfo]:
    """The tasks of one folder. A file that others include, or that defines a group, is checked but is no task."""
    paths = [path for path in sorted(folder.rglob("*.yaml")) if ".ipynb_checkpoints" not in path.parts]
    documents = [read_document(path) for path in paths]
    included = {path for document in documents for path in document.included}
    infos: dict[str, TaskInfo] = {}
    for document in documents:
        if document.path in included and "task" not in document.data:
            continue
        if "group" in document.data:
            check_fields(document, GROUP_FIELDS)
            continue
        info = _task_info(document)
        if info.name in infos:
            raise _used_twice(info.lm_eval_name, infos[info.name].path, info.path)
        infos[info.name] = info
    return list(infos.values())


def _task_info(document: Document) -> TaskInfo:
    data = document.data
    check_fields(document, TASK_FIELDS)
    require(document, "task")
    require(document, "test_split", "validation_split")
    require(document, "doc_to_text", "use_prompt")
    require(document, "dataset_path", "custom_dataset")
    if data.get("output_type", "generate_until") not in OUTPUT_TYPES:
        raise document.error(
            "output_type", f"unknown output_type {data['output_type']!r}", allowed=", ".join(OUTPUT_TYPES)
        )
    check_scoring(document)
    check_generation(document)
    ours = data.get("class") == _OUR_CLASS
    metadata = data.get("metadata") or {}
    version = metadata.get("version", 0)
    if isinstance(version, bool) or not isinstance(version, int | float) or version != int(version):
        raise document.error("metadata.version", f"metadata.version must be a whole number, got {version!r}")
    return TaskInfo(
        name=data["task"].removeprefix(PREFIX) if ours else data["task"],
        lm_eval_name=data["task"],
        path=document.path,
        kind=_choice(document, "dataset_kwargs", "kind", KINDS) if ours else "other",
        type=_choice(document, "metadata", "type", (*TYPES, "other")) if ours else metadata.get("type", "other"),
        default_split=_choice(document, "metadata", "split", ("ID", "OOD")) if ours else "OOD",
        data_file=_data_file(document) if ours else None,
        digest=digest({"yaml": _plain(data), "filters": FILTERS_VERSION} if ours else _own_content(data)),
        version=int(version),
    )


def _own_content(data: dict[str, Any]) -> dict[str, Any]:
    """What a user's task is: its YAML, and the bytes of the local files that it reads."""
    files = (data.get("dataset_kwargs") or {}).get("data_files") or []
    named = list(files.values()) if isinstance(files, dict) else files
    flat = [item for part in ([named] if isinstance(named, str) else named) for item in _listed(part)]
    local = {str(item): file_sha256(Path(item)) for item in flat if Path(item).is_file()}
    return {"yaml": _plain(data), "data": local}


def _listed(value: Any) -> list[str]:
    return [value] if isinstance(value, str) else [str(item) for item in value or []]


def _choice(document: Document, section: str, key: str, allowed: Sequence[str]) -> Any:
    value = (document.data.get(section) or {}).get(key)
    place = f"{section}.{key}" if f"{section}.{key}" in document.lines else section
    if value is None:
        raise document.error(place, f"missing key '{section}.{key}'", allowed=", ".join(allowed))
    if value not in allowed:
        raise document.error(place, f"{section}.{key} is {value!r}", allowed=", ".join(allowed))
    return value


def _data_file(document: Document) -> str:
    kwargs = document.data.get("dataset_kwargs") or {}
    known = {"file", "kind", "template", "data_root"}
    for key in kwargs:
        if key not in known:
            raise unknown_key(document, f"dataset_kwargs.{key}", str(key), known)
    file = kwargs.get("file")
    if not isinstance(file, str) or not file:
        place = "dataset_kwargs.file" if "dataset_kwargs.file" in document.lines else "dataset_kwargs"
        raise document.error(place, "dataset_kwargs.file must name the test file", allowed="a path below the data root")
    return file


def _plain(value: Any) -> Any:
    """YAML data as JSON data (dates and the like as text)."""
    if isinstance(value, dict):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_plain(item) for item in value]
    return value if value is None or isinstance(value, str | int | bool) else repr(value)


def select_tasks(texts: Sequence[str], tasks: dict[str, TaskInfo]) -> list[str]:
    """The short names meant by group names, types, task names ("boolq" or "infosteer_boolq") or "all", each once.

    In the order of `tasks`. "all" includes the user's own tasks. Raises UserError for an unknown name.
    """
    chosen: set[str] = set()
    own_types = {info.type for info in tasks.values()} | {"other"}
    for text in (part.strip() for given in texts for part in given.split(",")):
        short = text.removeprefix(PREFIX)
        if text in tasks:
            chosen.add(text)
        elif short == "all":
            chosen |= set(tasks)
        elif short in GROUPS or short in own_types:
            chosen |= {name for name in GROUPS.get(short, ()) if name in tasks}
            chosen |= {name for name, info in tasks.items() if info.type == short}
        elif short in tasks:
            chosen.add(short)
        else:
            raise unknown_name("task", text, [*GROUPS, *tasks])
    if not chosen:
        raise UserError(f"no task is named by {','.join(texts)!r}", allowed=", ".join([*GROUPS, *tasks]))
    return [name for name in tasks if name in chosen]


def build_task(
    info: TaskInfo,
    *,
    prompt: PromptConfig | None = None,
    data_root: Path | None = None,
    include_path: Path | None = None,
    tokenizer: PreTrainedTokenizerBase | None = None,
) -> Task:
    """The lm_eval Task of `info`, built by lm-eval's TaskManager from the YAML itself.

    prompt, data_root: as in load_dataset of the hooks; they touch our tasks only. tokenizer: of the model to be
    evaluated, needed for prompt.template="chat" alone.
    Raises UserError if the data cannot be had or the task cannot be built.
    """
    from lm_eval.tasks import TaskManager

    prompt = prompt or PromptConfig()
    # Metadata given to the TaskManager reaches `custom_dataset`: the public way to say where our data lie.
    overrides: dict[str, Any] = {"template": "plain" if prompt.template == "chat" else prompt.template}
    if data_root is not None:
        overrides["data_root"] = str(data_root)
    folders: list[str | Path] = [tasks_dir(), *([include_path] if include_path else [])]
    ours = info.kind != "other"
    manager = TaskManager(include_path=folders, include_defaults=False, metadata=overrides if ours else None)
    try:
        task = manager.load(info.lm_eval_name)["tasks"][info.lm_eval_name]
    except UserError:
        raise
    except Exception as error:
        if ours:
            raise
        # A user's YAML runs code of lm-eval and datasets that may raise anything; what counts is which file it was.
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise UserError(f"task {info.name} ({show(info.path)}) cannot be built: {reason}") from error
    if ours and prompt.template == "chat":
        from infosteer_bench.data.render import Renderer

        task.use_renderer(Renderer(prompt, tokenizer))  # type: ignore[attr-defined]
    return task

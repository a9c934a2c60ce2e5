"""What lm-eval accepts in a task or group YAML: keys, their types, and the shape of metrics, filters and generation.

lm-eval finds out late or never (an unknown key ends in a TypeError when the task is built, a misspelt stop sequence in
nothing at all); here it is a UserError with file and line before anything runs.
"""

from __future__ import annotations

from collections.abc import Iterable

from infosteer_bench.errors import UserError, unknown_name
from infosteer_bench.strict_yaml import Document

# Fields of lm-eval's TaskConfig with the types that YAML may give them; a test compares the names with lm-eval's own.
_TEXT, _MAPPING, _LIST, _NUMBER = (str,), (dict,), (list,), (int, float)
TASK_FIELDS: dict[str, tuple[type, ...]] = {
    "task": _TEXT, "task_alias": _TEXT, "tag": (str, list), "class": _TEXT, "custom_dataset": _TEXT,
    "dataset_path": _TEXT, "dataset_name": _TEXT, "dataset_kwargs": _MAPPING, "training_split": _TEXT,
    "validation_split": _TEXT, "test_split": _TEXT, "fewshot_split": _TEXT, "process_docs": _TEXT,
    "doc_to_text": (str, int), "doc_to_target": (str, int, list), "doc_to_image": (str, list),
    "doc_to_audio": (str, list), "unsafe_code": (bool,), "doc_to_choice": (str, dict, list),
    "process_results": _TEXT, "use_prompt": _TEXT, "description": _TEXT, "target_delimiter": _TEXT,
    "fewshot_delimiter": _TEXT, "fewshot_config": _MAPPING, "num_fewshot": (int,), "metric_list": _LIST,
    "output_type": _TEXT, "generation_kwargs": _MAPPING, "repeats": (int,), "filter_list": _LIST,
    "should_decontaminate": (bool,), "doc_to_decontamination_query": _TEXT, "gen_prefix": _TEXT, "metadata": _MAPPING,
}  # fmt: skip
GROUP_FIELDS: dict[str, tuple[type, ...]] = {
    "group": _TEXT, "group_alias": _TEXT, "task": (str, list), "aggregate_metric_list": (list, dict),
    "metadata": _MAPPING, "tag": (str, list),
}  # fmt: skip
OUTPUT_TYPES = ("generate_until", "loglikelihood", "loglikelihood_rolling", "multiple_choice")


def check_fields(document: Document, fields: dict[str, tuple[type, ...]]) -> None:
    """Refuse keys that are not among `fields` and values of another type than they give. Raises UserError."""
    for key, value in document.data.items():
        if key not in fields:
            raise unknown_key(document, key, key, fields)
        wanted = fields[key]
        if value is not None and (not isinstance(value, wanted) or (isinstance(value, bool) and bool not in wanted)):
            names = " or ".join({"str": "text", "dict": "a mapping"}.get(t.__name__, t.__name__) for t in wanted)
            raise document.error(key, f"{key} must be {names}, got {value!r:.60}")


def unknown_key(document: Document, place: str, key: str, known: Iterable[str]) -> UserError:
    """The error for a key that has no meaning, at `place`, with the nearest known keys."""
    fault = unknown_name("key", key, known)
    return document.error(place, fault.what, allowed=fault.allowed, hint=fault.hint)


def require(document: Document, *choices: str) -> None:
    """Refuse a document that has none of these keys. Raises UserError."""
    if all(document.data.get(key) is None for key in choices):
        raise document.error(None, f"missing key {' or '.join(repr(key) for key in choices)}")


def check_scoring(document: Document) -> None:
    """metric_list and filter_list are lists of mappings that name what they hold."""
    for metric in document.data.get("metric_list") or []:
        if not isinstance(metric, dict) or not isinstance(metric.get("metric"), str):
            raise document.error("metric_list", f"each entry of metric_list needs a 'metric', got {metric!r:.60}")
    for entry in document.data.get("filter_list") or []:
        if not isinstance(entry, dict) or not isinstance(entry.get("name"), str):
            raise document.error("filter_list", f"each entry of filter_list needs a 'name', got {entry!r:.60}")
        steps = entry.get("filter")
        if not isinstance(steps, list) or not all(isinstance(s, dict) and s.get("function") for s in steps):
            raise document.error("filter_list", f"filter {entry['name']!r} needs a list of steps with a 'function'")


def check_generation(document: Document) -> None:
    settings = document.data.get("generation_kwargs") or {}
    until, tokens = settings.get("until", []), settings.get("max_gen_toks", 1)
    if not isinstance(until, str) and not (isinstance(until, list) and all(isinstance(s, str) for s in until)):
        raise document.error("generation_kwargs.until", f"until must be text or a list of texts, got {until!r:.60}")
    if isinstance(tokens, bool) or not isinstance(tokens, int) or tokens < 1:
        raise document.error("generation_kwargs.max_gen_toks", f"max_gen_toks must be 1 or more, got {tokens!r}")

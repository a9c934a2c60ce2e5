"""Strict reading: a user's own task, a new task as one YAML, and every broken YAML named by file and line."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest
from tiny import build_data_root

from infosteer_bench.benchmark import GROUPS
from infosteer_bench.errors import UserError
from infosteer_bench.tasks import schema
from infosteer_bench.tasks.catalog import build_task, read_tasks, select_tasks, tasks_dir

PLAIN = """task: my_task
dataset_path: json
dataset_kwargs: {data_files: {test: DATA}}
test_split: test
doc_to_text: "{{question}}"
doc_to_target: "{{answer}}"
output_type: generate_until
generation_kwargs: {until: ["\\n"], max_gen_toks: 8}
metric_list:
  - metric: exact_match
    aggregation: mean
    higher_is_better: true
metadata: {version: 2}
"""


def write(folder: Path, name: str, text: str) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / name).write_text(text, encoding="utf-8")
    return folder


def test_a_users_task(tmp_path: Path) -> None:
    data = tmp_path / "mine.json"
    data.write_text(json.dumps([{"question": "1 + 1 =", "answer": "2"}] * 3), encoding="utf-8")
    folder = write(tmp_path / "yaml", "mine.yaml", PLAIN.replace("DATA", str(data)))
    write(folder, "group.yaml", "group: my_group\ntask: [my_task]\n")
    tasks = read_tasks(folder)
    info = tasks["my_task"]
    assert (info.kind, info.type, info.default_split, info.data_file, info.version) == (
        "other",
        "other",
        "OOD",
        None,
        2,
    )
    assert select_tasks(["all"], tasks) == [*GROUPS["all"], "my_task"]
    assert select_tasks(["other"], tasks) == ["my_task"]
    task = build_task(info, include_path=folder)
    assert len(task.eval_docs) == 3
    assert task.doc_to_text(task.eval_docs[0]) == "1 + 1 ="


def test_a_users_task_on_missing_data(tmp_path: Path) -> None:
    folder = write(tmp_path, "mine.yaml", PLAIN.replace("DATA", str(tmp_path / "none.json")))
    with pytest.raises(UserError, match=r"task my_task \(.*mine.yaml\) cannot be built"):
        build_task(read_tasks(folder)["my_task"], include_path=folder)


OURS = """include: INCLUDE
task: infosteer_new
dataset_kwargs: {file: dataset/boolq/test.json, kind: choice}
metadata: {version: 1.0, type: reading, split: ID}
"""


def test_a_new_task_is_one_yaml(tmp_path: Path) -> None:
    folder = write(tmp_path, "new.yaml", OURS.replace("INCLUDE", str(tasks_dir() / "_choice_template_yaml")))
    tasks = read_tasks(folder)
    assert select_tasks(["reading"], tasks) == ["boolq", "new"]
    assert (
        len(build_task(tasks["new"], data_root=build_data_root(tmp_path / "data"), include_path=folder).eval_docs) == 8
    )


BROKEN = [
    (PLAIN + "generation_kwarg: {}\n", r"line 14: unknown key 'generation_kwarg'.*did you mean 'generation_kwargs'"),
    (PLAIN + "task: again\n", "line 14: duplicate key 'task'"),
    (PLAIN.replace("task: my_task\n", ""), "line 1: missing key 'task'"),
    (PLAIN.replace("task: my_task", "task: [a]"), "line 1: task must be text"),
    (PLAIN.replace("task: my_task", "task: infosteer_x\nnum_fewshot: true"), "line 2: num_fewshot must be int"),
    (PLAIN.replace("test_split: test\n", ""), "missing key 'test_split' or 'validation_split'"),
    (PLAIN.replace('doc_to_text: "{{question}}"\n', ""), "missing key 'doc_to_text' or 'use_prompt'"),
    (PLAIN.replace("dataset_path: json\n", ""), "missing key 'dataset_path' or 'custom_dataset'"),
    (PLAIN.replace("generate_until", "generate_untill"), "line 7: unknown output_type 'generate_untill'"),
    (PLAIN.replace("max_gen_toks: 8", "max_gen_toks: 0"), "line 8: max_gen_toks must be 1 or more"),
    (PLAIN.replace('["\\n"]', "[1]"), "line 8: until must be text"),
    (PLAIN.replace("  - metric: exact_match", "  - metrics: exact_match"), "line 9: each entry of metric_list"),
    (PLAIN + "filter_list: [{name: x, filter: take_first}]\n", "line 14: filter 'x' needs a list of steps"),
    (PLAIN + "filter_list: [take_first]\n", "line 14: each entry of filter_list needs a 'name'"),
    (PLAIN.replace("version: 2", "version: new"), "line 13: metadata.version must be a whole number"),
    (PLAIN + "process_results: !function utils.score\n", "line 14: !function 'utils.score' is refused"),
    (PLAIN + "process_results: !function os.system\n", "line 14: !function 'os.system' is refused"),
    (PLAIN + "process_results: !function infosteer_bench.tasks.x.__import__('os')\n", "line 14: !function"),
    (PLAIN + "process_docs: !!python/object/apply:os.system [id]\n", "line 14: could not determine a constructor"),
    (PLAIN + "description: 'open\n", "line 15: found unexpected end"),
    (PLAIN + "  indented: 1\n", "line 14: "),
    ("- a list\n", "line 1: not a mapping"),
    ("", "line 1: not a mapping"),
    ("1: one\n", "line 1: key 1 is not text"),
    (PLAIN + "include: nothing.yaml\n", "line 14: included file 'nothing.yaml' does not exist"),
    (PLAIN + "include: mine.yaml\n", "line 14: include 'mine.yaml' leads back"),
    (PLAIN + "include: [1]\n", "line 14: include must be a file name"),
    (PLAIN.replace("my_task", "boolq"), "line 1: task name 'boolq' is already taken by tasks/infosteer_boolq.yaml"),
    ("group: g\ntask: [a]\naggregate: 1\n", "line 3: unknown key 'aggregate'"),
    ("task: \x00\n", "mine.yaml, line 1: "),
]
BROKEN_OURS = [
    (OURS.replace("kind: choice", "kind: choose"), "line 3: dataset_kwargs.kind is 'choose'; allowed: choice, number"),
    (OURS.replace(", kind: choice", ""), "line 3: missing key 'dataset_kwargs.kind'"),
    (OURS.replace("file: dataset/boolq/test.json, ", ""), "line 3: dataset_kwargs.file must name the test file"),
    (OURS.replace("file: dataset", "data: dataset"), "line 3: unknown key 'data'"),
    (OURS.replace("type: reading", "type: writing"), "line 4: metadata.type is 'writing'"),
    (OURS.replace(", split: ID", ""), "line 4: missing key 'metadata.split'"),
    (OURS.replace("metadata:", "meta:"), "line 4: unknown key 'meta'"),
]


@pytest.mark.parametrize(("text", "message"), BROKEN)
def test_a_broken_yaml_names_file_and_line(tmp_path: Path, text: str, message: str) -> None:
    folder = write(tmp_path / "yaml", "mine.yaml", text)
    with pytest.raises(UserError, match=message) as caught:
        read_tasks(folder)
    assert str(caught.value).startswith("yaml/mine.yaml, line ")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(("text", "message"), BROKEN_OURS)
def test_a_broken_yaml_of_ours(tmp_path: Path, text: str, message: str) -> None:
    folder = write(tmp_path, "mine.yaml", text.replace("INCLUDE", str(tasks_dir() / "_choice_template_yaml")))
    with pytest.raises(UserError, match=message):
        read_tasks(folder)


def test_broken_folders(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="is not a folder"):
        read_tasks(tmp_path / "none")
    with pytest.raises(UserError, match="holds no task YAML"):
        read_tasks(tmp_path)
    (tmp_path / "x.yaml").write_bytes(b"\xff\xfe\x00task")
    with pytest.raises(UserError, match="not UTF-8"):
        read_tasks(tmp_path)


def test_a_fault_in_an_included_file_names_that_file(tmp_path: Path) -> None:
    write(tmp_path / "yaml", "base.yaml", PLAIN.replace("task: my_task\n", "") + "oops: 1\n")
    write(tmp_path / "yaml", "mine.yaml", "task: mine\ninclude: base.yaml\n")
    with pytest.raises(UserError, match=r"^yaml/base.yaml, line 13: unknown key 'oops'"):
        read_tasks(tmp_path / "yaml")


def test_the_same_name_twice(tmp_path: Path) -> None:
    write(tmp_path, "a.yaml", PLAIN)
    write(tmp_path, "b.yaml", "# comment\n" + PLAIN)
    with pytest.raises(UserError, match=r"b.yaml, line 2: task name 'my_task' is already taken by .*a.yaml"):
        read_tasks(tmp_path)


def test_known_keys_are_those_of_lm_eval() -> None:
    from lm_eval.config.group import GroupConfig
    from lm_eval.config.task import TaskConfig

    assert set(schema.TASK_FIELDS) == {field.name for field in dataclasses.fields(TaskConfig)} | {"class"}
    assert set(schema.GROUP_FIELDS) == {field.name for field in dataclasses.fields(GroupConfig)} | {"tag"}

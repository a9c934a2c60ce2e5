"""Grid files are read strictly: what stands twice is refused, what is misspelt gets a suggestion."""

from __future__ import annotations

from pathlib import Path

import pytest

from infosteer_bench.errors import UserError
from infosteer_bench.grid import grid_names, load_grid

GRID = "models: [mini-llama]\nmethods: [base, sft]\nmixes: [gsm8k]\n"


def refused(tmp_path: Path, text: str, *settings: str) -> str:
    path = tmp_path / "g.yaml"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(UserError) as caught:
        load_grid(str(path), overrides=settings)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_a_grid_that_is_right_is_read(tmp_path: Path) -> None:
    (tmp_path / "g.yaml").write_text(GRID, encoding="utf-8")
    assert load_grid(str(tmp_path / "g.yaml")).name == "g"
    assert [load_grid(name).name for name in grid_names()] == grid_names()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (f"{GRID}seeds: [0]\nname: x\nseeds: [1]\n", "line 6: duplicate key 'seeds'"),
        (f"{GRID}train: {{max_steps: 1, batch_size: 2, max_steps: 3}}\n", "line 4: duplicate key 'max_steps'"),
        (GRID.replace("[base, sft]", "[sft: {a: 1, a: 2}]"), "line 2: duplicate key 'a'"),
        (f"{GRID}seeds: [0, 0]\n", "seeds: seeds must be distinct whole numbers"),
        (f"{GRID}seeds: [true, 0]\n", "seeds: seeds must be distinct whole numbers"),
        (f"{GRID}seeds: [1.0]\n", "seeds: seeds must be distinct whole numbers"),
        (f"{GRID}seeds: []\n", "seeds: seeds must be distinct whole numbers"),
        (GRID.replace("[mini-llama]", "[mini-llama, mini-llama]"), "model mini-llama stands 2 times"),
        (GRID.replace("[gsm8k]", "[gsm8k, gsm8k]"), "mix gsm8k stands 2 times"),
        (
            GRID.replace("[gsm8k]", "[{name: m, sources: [a.jsonl], tasks: [boolq]}, "
                         "{name: m, sources: [b.jsonl], tasks: [piqa]}]"),
            "mix m stands 2 times",
        ),
        (
            GRID.replace("[gsm8k]", "[{name: m, sources: [boolq, boolq], tasks: [boolq]}]"),
            "source of mix m boolq stands 2 times",
        ),
        (GRID.replace("sft", "sft, sft"), "method sft stands twice with the same settings"),
        (f"{GRID}name: !!python/name:os.getcwd\n", "could not determine a constructor"),
        ("- a\n", "line 1: not a mapping"),
    ],
)  # fmt: skip
def test_what_is_not_one_clear_statement_is_refused(tmp_path: Path, text: str, message: str) -> None:
    assert message in refused(tmp_path, text)


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("train.lerning_rate=1", "'train.lerning_rate'; allowed: "),
        ("train.lerning_rate=1", "next: did you mean 'train.learning_rate'"),
        ("trian.max_steps=1", "did you mean 'train'"),
        ("train.lora.rnk=1", "did you mean 'train.lora.rank'"),
        ("eval.max_new_token=1", "did you mean 'eval.max_new_tokens'"),
        ("methods.stf.alpha=1", "did you mean 'sft'"),
    ],
)
def test_a_misspelt_setting_gets_a_suggestion(tmp_path: Path, setting: str, message: str) -> None:
    assert message in refused(tmp_path, GRID, setting)


def test_a_setting_is_read_as_strictly(tmp_path: Path) -> None:
    assert "duplicate key 'max_steps'" in refused(tmp_path, GRID, "train={max_steps: 1, max_steps: 2}")


def test_what_is_said_of_a_whole_grid_does_not_print_it(tmp_path: Path) -> None:
    message = refused(tmp_path, GRID.replace("[gsm8k]", "[gsm8k, gsm8k]"))
    assert message.endswith("g.yaml: mix gsm8k stands 2 times")


def test_a_misspelt_field_of_a_mix_is_named_with_its_place(tmp_path: Path) -> None:
    text = GRID.replace("[gsm8k]", "[{name: m, source: [a.jsonl], tasks: [boolq]}]")
    message = refused(tmp_path, text.replace("tasks", "sources: [boolq], tasks"))
    assert "'mixes.0.source'" in message
    assert "did you mean 'mixes.0.sources'" in message


def test_a_misspelt_setting_of_a_method_gets_a_suggestion() -> None:
    from infosteer_bench.methods import METHODS

    with pytest.raises(UserError, match="did you mean 'alpha'"):
        METHODS.get("infosteer-intervention").configure({"alfa": 2})

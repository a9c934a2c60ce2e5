"""Mixes: what they hold, what is held out, order, digest, users' own files, overlong rows."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from tiny import build_data_root

from infosteer_bench.data.mixes import Mix, build_mix, in_commonsense_dev, tokenize_mix
from infosteer_bench.data.sources import LocalRoot
from infosteer_bench.errors import UserError
from infosteer_bench.grid import BUILTIN_MIXES, MixSpec, PromptConfig
from infosteer_bench.models.load import load_tokenizer

HELD_OUT = {
    "boolq": 176,
    "piqa": 312,
    "siqa": 684,
    "winogrande": 859,
    "arc_easy": 33,
    "arc_challenge": 28,
    "openbookqa": 101,
}


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_data_root(tmp_path_factory.mktemp("data"), n_train=400)


def _mix(root: Path, name: str = "commonsense", max_examples: int | None = None, **kwargs) -> Mix:
    prompt = kwargs.pop("prompt", PromptConfig())
    spec = kwargs.pop("spec", None) or BUILTIN_MIXES[name]
    return build_mix(spec, LocalRoot(root), prompt=prompt, max_examples=max_examples, **kwargs)


def _own(path: Path, rows: list[dict]) -> MixSpec:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return MixSpec(name="own", sources=(str(path),), tasks=("boolq",))


def test_real_commonsense_mix(data_root: Path) -> None:
    mix, dev = _mix(data_root), _mix(data_root, part="dev")
    available = {"boolq": 9427, "piqa": 16113, "siqa": 33410, "winogrande": 40398, "arc_easy": 2251}
    available |= {"arc_challenge": 1119, "openbookqa": 4957}
    assert {name: info["available"] for name, info in mix.sources.items()} == available
    assert mix.missing == ("hellaswag",)
    assert mix.stand_ins == ("dataset/winogrande/train.json",)
    assert len(mix.rows) + len(dev.rows) == sum(available.values()) == 107_675
    for name, info in mix.sources.items():
        assert info["rows"] == available[name] - info["held_out"]
        assert dev.sources[name]["rows"] == info["held_out"]
        assert 0.01 < info["held_out"] / available[name] < 0.03, name
    # What is held out is a fact of the data, not of a seed: these numbers must never move.
    assert {name: info["held_out"] for name, info in mix.sources.items()} == HELD_OUT
    assert not {row.prompt for row in mix.rows} & {row.prompt for row in dev.rows}
    assert all(row.completion.startswith("the correct answer is ") for row in mix.rows)


def test_real_gsm8k_mix_holds_out_the_last_300(data_root: Path) -> None:
    mix, dev = _mix(data_root, "gsm8k"), _mix(data_root, "gsm8k", part="dev")
    assert (len(mix.rows), len(dev.rows)) == (7173, 300)
    assert mix.sources["gsm8k"]["held_out"] == 300
    assert mix.missing == mix.stand_ins == ()
    lines = (data_root / "gsm8k_train.jsonl").read_text().split("\n")
    last = json.loads(lines[7472])["question"].strip()
    assert any(row.prompt.startswith(last) for row in dev.rows)
    assert not any(row.prompt.startswith(last) for row in mix.rows)


def test_dev_rule_keeps_duplicates_together() -> None:
    texts = [f"question {n}" for n in range(20_000)]
    share = sum(map(in_commonsense_dev, texts)) / len(texts)
    assert 0.017 < share < 0.023
    assert all(in_commonsense_dev(text) == in_commonsense_dev(f" {text}\n") for text in texts[:500])


def test_order_is_fixed_interleaved_and_nested(root: Path) -> None:
    whole = _mix(root)
    assert _mix(root) == whole
    assert whole.missing == ()
    head = _mix(root, max_examples=120)
    assert head.rows == whole.rows[:120]
    assert sum(info["rows"] for info in head.sources.values()) == 120
    assert len({row.source for row in head.rows}) == 8
    assert head.digest != whole.digest
    assert _mix(root, max_examples=10**9).digest == whole.digest


def test_digest_follows_the_rendered_text(root: Path) -> None:
    plain, marked = _mix(root, "gsm8k"), _mix(root, "gsm8k", prompt=PromptConfig(strip_calculator=False))
    assert plain.digest != marked.digest
    assert [row.prompt for row in plain.rows] == [row.prompt for row in marked.rows]
    assert _mix(root, "gsm8k", prompt=PromptConfig(template="alpaca")).digest != plain.digest


def test_a_missing_source_is_named_and_all_missing_is_an_error(root: Path, tmp_path: Path) -> None:
    part = build_data_root(tmp_path / "part", n_train=60)
    (part / "dataset/hellaswag/train.json").unlink()
    mix = _mix(part)
    assert mix.missing == ("hellaswag",)
    assert "hellaswag" not in mix.sources
    assert len(mix.stand_ins) == 7
    with pytest.raises(UserError, match=r"none of its sources.*hellaswag"):
        _mix(part, spec=MixSpec(name="h", sources=("hellaswag",), tasks=("hellaswag",)))


def test_unknown_sources(root: Path) -> None:
    with pytest.raises(UserError, match=r"unknown mix source 'bolq'.*did you mean 'boolq'"):
        _mix(root, spec=MixSpec(name="x", sources=("bolq",), tasks=("boolq",)))
    with pytest.raises(UserError, match=r"gone\.jsonl does not exist"):
        _mix(root, spec=MixSpec(name="x", sources=("gone.jsonl",), tasks=("boolq",)))


def test_too_few_rows_for_a_training_part(tmp_path: Path) -> None:
    root = build_data_root(tmp_path / "d")
    lines = (root / "gsm8k_train.jsonl").read_text().splitlines()
    (root / "gsm8k_train.jsonl").write_text("\n".join(lines[:300]))
    with pytest.raises(UserError, match="no train rows"):
        _mix(root, "gsm8k")


def test_duplicate_rows_are_kept(tmp_path: Path, root: Path) -> None:
    row = {"prompt": "p\n", "completion": "c"}
    mix = _mix(root, spec=_own(tmp_path / "own.jsonl", [row, row, row]))
    assert len(mix.rows) == 3


def test_a_users_own_file(tmp_path: Path, root: Path) -> None:
    rows = [
        {"prompt": "Say hi: ", "completion": " hi "},
        {"question": "1+1? ", "answer": "It is <<1+1=2>>2.\n#### 2"},
        {"instruction": " Explain. ", "output": "Because of this. ", "answer": "this"},
        {"instruction": "True?", "answer": "true"},
        {"instruction": "2+3?", "output": "2+3=5", "answer": "5.0", "kind": "number"},
    ]
    spec = _own(tmp_path / "own.jsonl", rows)
    mix = _mix(root, spec=spec)
    reason = "\nAnswer the above question. First think step by step and then answer the final number.\n"
    assert {(row.prompt, row.completion) for row in mix.rows} == {
        ("Say hi: ", " hi "),
        (f"1+1?{reason}", "It is 2.\nThe final answer is: 2"),
        ("Explain.\n", "Because of this."),
        ("True?\n", "the correct answer is true"),
        (f"2+3?{reason}", "2+3=5\nThe final answer is: 5"),
    }
    assert mix.stand_ins == ()
    assert mix.sources[spec.sources[0]]["held_out"] == 0
    with pytest.raises(UserError, match="no dev rows"):
        _mix(root, spec=spec, part="dev")
    moved = tmp_path / "elsewhere.jsonl"
    moved.write_bytes((tmp_path / "own.jsonl").read_bytes())
    assert _mix(root, spec=MixSpec(name="own2", sources=(str(moved),), tasks=("boolq",))).digest == mix.digest


@pytest.mark.parametrize(
    "row", [{"text": "x"}, {"prompt": "x"}, {"prompt": "x", "completion": ""}, {"question": "x", "answer": "y"}]
)
def test_a_bad_row_names_file_and_record(tmp_path: Path, root: Path, row: dict) -> None:
    spec = _own(tmp_path / "own.jsonl", [{"prompt": "p", "completion": "c"}, row])
    with pytest.raises(UserError, match=r"own\.jsonl, record 2: "):
        _mix(root, spec=spec)


def test_overlong_rows_are_dropped_whole_and_counted(root: Path, tiny_models: dict[str, Path]) -> None:
    tokenizer = load_tokenizer(tiny_models["llama"])
    spec = MixSpec(name="two", sources=("boolq", "gsm8k"), tasks=("boolq",))
    mix = _mix(root, spec=spec)
    everything = tokenize_mix(mix, tokenizer, max_length=10_000, overlong="error")
    lengths = sorted(len(row["input_ids"]) for row in everything.rows)
    limit = lengths[len(lengths) // 2]
    data = tokenize_mix(mix, tokenizer, max_length=limit, overlong="drop")
    assert data.n_rows == len(data.rows) == sum(length <= limit for length in lengths)
    assert data.n_rows + sum(data.dropped_overlong.values()) == len(mix.rows)
    assert sum(data.dropped_overlong.values()) > 0
    assert set(data.dropped_overlong) == {"boolq", "gsm8k"}
    assert everything.dropped_overlong == {"boolq": 0, "gsm8k": 0}
    assert all(row["input_ids"][-1] == tokenizer.eos_token_id for row in data.rows)
    assert data.n_tokens == sum(len(row["input_ids"]) for row in data.rows)
    assert data.n_label_tokens == sum(sum(label != -100 for label in row["labels"]) for row in data.rows)
    with pytest.raises(UserError, match=r"a row of .* tokens, more than train\.max_length"):
        tokenize_mix(mix, tokenizer, max_length=limit, overlong="error")
    with pytest.raises(UserError, match=r"all .* rows are longer"):
        tokenize_mix(mix, tokenizer, max_length=4, overlong="drop")

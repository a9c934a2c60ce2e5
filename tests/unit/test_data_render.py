"""The renderer's exact texts, and `encode` on every family's tokenizer."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tiny import FAMILY_NAMES

from infosteer_bench.data.render import IGNORE, Renderer, bos_ids, encode, encode_batch, plain_number
from infosteer_bench.data.sources import LocalRoot, load_json_records
from infosteer_bench.errors import UserError
from infosteer_bench.grid import PromptConfig
from infosteer_bench.models.load import load_tokenizer

PLAIN = Renderer(PromptConfig())
CHOICE = {
    "instruction": " Is it so?\n\nAnswer format: true/false",
    "output": "the correct answer is true",
    "answer": "true",
}
GSM8K = {
    "question": "How many clips? ",
    "answer": "She sold 48/2 = <<48/2=24>>24 clips.\nIn all 48+24 = <<48+24=72>>1,072.\n#### 1,072",
}
CHAT = (
    "{% for m in messages %}<|begin_of_text|>[{{ m.role }}] {{ m.content }}\n{% endfor %}"
    "{% if add_generation_prompt %}[assistant] {% endif %}"
)


@pytest.fixture(scope="module")
def tokenizers(tiny_models: dict[str, Path]) -> dict:
    return {family: load_tokenizer(path) for family, path in tiny_models.items()}


def test_choice_text() -> None:
    assert PLAIN.prompt(CHOICE, "choice") == "Is it so?\n\nAnswer format: true/false\n"
    assert PLAIN.completion(CHOICE, "choice") == "the correct answer is true"


def test_number_text() -> None:
    assert PLAIN.prompt(GSM8K, "number") == (
        "How many clips?\nAnswer the above question. First think step by step and then answer the final number.\n"
    )
    assert PLAIN.completion(GSM8K, "number") == (
        "She sold 48/2 = 24 clips.\nIn all 48+24 = 1,072.\nThe final answer is: 1072"
    )


def test_calculator_marks_stay_when_asked() -> None:
    text = Renderer(PromptConfig(strip_calculator=False)).completion(GSM8K, "number")
    assert "<<48/2=24>>24" in text
    assert text.endswith("\nThe final answer is: 1072")


def test_letter_text() -> None:
    record = {"instruction": "Which? (A) 1 (B) 2 ", "output": " It is (B). ", "answer": "B"}
    assert PLAIN.prompt(record, "letter") == (
        "Which? (A) 1 (B) 2\nAnswer the above question. First think step by step and then answer the final letter.\n"
    )
    assert PLAIN.completion(record, "letter") == "It is (B).\nThe final answer is: B"


def test_upstream_math_record() -> None:
    record = {"instruction": " Bob had 7 . ", "output": "The answer is 7.", "answer": "7.0"}
    assert PLAIN.prompt(record, "number").startswith("Bob had 7 .\nAnswer the above question.")
    assert PLAIN.completion(record, "number") == "The answer is 7.\nThe final answer is: 7"


@pytest.mark.parametrize(
    ("given_text", "expected"),
    [
        ("1,234", "1234"),
        ("576.0", "576"),
        (" -3.50", "-3.50"),
        ("1,000,000.00", "1000000"),
        ("0.1", "0.1"),
        ("5.", "5"),
    ],
)
def test_plain_number(given_text: str, expected: str) -> None:
    assert plain_number(given_text) == expected


@pytest.mark.parametrize(
    ("record", "kind", "message"),
    [
        ({"instruction": "x"}, "choice", "no text field 'answer'"),
        ({"instruction": "x", "answer": 3}, "choice", "no text field 'answer'"),
        ({"question": "x", "answer": "72"}, "number", "no '#### <number>'"),
        ({"instruction": "x", "answer": "1"}, "essay", "kind 'essay'"),
    ],
)
def test_records_that_cannot_be_rendered(record: dict, kind: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        PLAIN.completion(record, kind)


def test_every_gsm8k_training_row_ends_in_a_number_and_has_no_marks(data_root: Path) -> None:
    for record in load_json_records(LocalRoot(data_root).get("gsm8k_train.jsonl")):
        text = PLAIN.completion(record, "number")
        rationale, _, number = text.rpartition("\nThe final answer is: ")
        float(number)
        assert rationale
        assert "<<" not in text
        assert "####" not in text


def test_alpaca_wraps_the_same_text() -> None:
    renderer = Renderer(PromptConfig(template="alpaca"))
    head = "Below is an instruction that describes a task. Write a response that appropriately completes the request. "
    pad = " " * 16
    assert renderer.prompt(CHOICE, "choice") == (
        f"{head}\n\n{pad}### Instruction:\n{pad}Is it so?\n\nAnswer format: true/false\n\n{pad}### Response:\n{pad}"
    )
    assert "final number.\n\n" in renderer.prompt(GSM8K, "number")
    assert renderer.completion(CHOICE, "choice") == PLAIN.completion(CHOICE, "choice")


def test_braces_in_a_question_are_text() -> None:
    record = {"instruction": "What is {x} and {0}?", "answer": "true"}
    assert "What is {x} and {0}?" in Renderer(PromptConfig(template="alpaca")).prompt(record, "choice")


def test_chat_needs_a_chat_template(tokenizers: dict) -> None:
    for tokenizer in (None, tokenizers["qwen2"]):
        with pytest.raises(UserError, match="chat template"):
            Renderer(PromptConfig(template="chat"), tokenizer)


def test_chat_has_one_bos(tiny_models: dict[str, Path]) -> None:
    tokenizer = load_tokenizer(tiny_models["llama"])
    tokenizer.chat_template = CHAT
    prompt = Renderer(PromptConfig(template="chat"), tokenizer).prompt(CHOICE, "choice")
    assert prompt == "<|begin_of_text|>[user] Is it so?\n\nAnswer format: true/false\n[assistant] "
    ids, _ = encode(tokenizer, prompt, "the correct answer is true")
    assert ids.count(tokenizer.bos_token_id) == 1
    assert ids[0] == tokenizer.bos_token_id


@pytest.mark.parametrize("family", FAMILY_NAMES)
def test_encode_prompt_is_the_prefix_and_eos_the_end(tokenizers: dict, family: str) -> None:
    tokenizer = tokenizers[family]
    prompt, completion = PLAIN.prompt(GSM8K, "number"), PLAIN.completion(GSM8K, "number")
    alone, alone_labels = encode(tokenizer, prompt, None)
    ids, labels = encode(tokenizer, prompt, completion)
    assert ids[: len(alone)] == alone
    assert labels[: len(alone)] == alone_labels == [IGNORE] * len(alone)
    assert labels[len(alone) :] == ids[len(alone) :]
    assert ids[-1] == tokenizer.eos_token_id
    assert ids.count(tokenizer.eos_token_id) == 1
    has_bos = family in ("llama", "gemma2", "gemma3")
    assert bos_ids(tokenizer) == ([tokenizer.bos_token_id] if has_bos else [])
    assert (ids[0] == tokenizer.bos_token_id) is has_bos
    assert ids.count(tokenizer.bos_token_id) == int(has_bos)
    assert tokenizer.decode(ids, skip_special_tokens=True) == prompt + completion


@pytest.mark.parametrize("family", FAMILY_NAMES)
@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(text=st.text(st.characters(codec="utf-8", exclude_categories=["Cs"]), min_size=1, max_size=40))
def test_encode_prefix_holds_for_any_text(tokenizers: dict, family: str, text: str) -> None:
    tokenizer = tokenizers[family]
    ids, labels = encode(tokenizer, text, text)
    alone = encode(tokenizer, text, None)[0]
    assert ids[: len(alone)] == alone
    assert len(ids) == len(labels)
    assert sum(label != IGNORE for label in labels) == len(ids) - len(alone) > 0


def test_encode_batch_is_encode_row_by_row(tokenizers: dict) -> None:
    prompts, completions = ["a\n", "longer prompt?\n", "é\n"], ["x", "", "the correct answer is true"]
    for tokenizer in tokenizers.values():
        singly = [encode(tokenizer, p, c) for p, c in zip(prompts, completions, strict=True)]
        assert encode_batch(tokenizer, prompts, completions) == singly
        assert encode_batch(tokenizer, [], []) == []


def test_without_eos_a_completion_cannot_end(tiny_models: dict[str, Path]) -> None:
    tokenizer = load_tokenizer(tiny_models["qwen3"])
    tokenizer.eos_token = None
    with pytest.raises(UserError, match="end-of-sequence"):
        encode(tokenizer, "a", "b")

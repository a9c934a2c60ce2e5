"""The one renderer: how a record becomes a prompt and a completion, in training and in evaluation alike.

    renderer = Renderer(PromptConfig())
    prompt, completion = renderer.prompt(record, "choice"), renderer.completion(record, "choice")
    input_ids, labels = encode(tokenizer, prompt, completion)

Texts of docs/method.md, literally (no EOS in them; `encode` adds it):

    choice   {instruction}\\n                                      -> the correct answer is {answer}
    number   {question}\\nAnswer the above question. First think step by step and then answer the final number.\\n
                                                                  -> {rationale}\\nThe final answer is: {n}
    letter   the same with "the final letter"

Blanks and newlines at either end of an instruction or question are removed: upstream's arithmetic questions carry stray
ones (all of AddSub and MultiArith), and they would be tokens of their own. Nothing inside the text is touched.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from infosteer_bench.errors import UserError
from infosteer_bench.grid import PromptConfig

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

RENDERER_VERSION = 1
"""Raised whenever the same record and config would give another text; part of every checkpoint's identity."""

KINDS = ("choice", "number", "letter")
IGNORE = -100
"""Label of a token that carries no loss."""

REASON = "Answer the above question. First think step by step and then answer the final {}."
CALCULATOR = re.compile(r"<<[^<>]*>>")
# LLM-Adapters' wrapper without input, indented as there (commomsense_evaluate.py).
_ALPACA = (
    "Below is an instruction that describes a task. Write a response that appropriately completes the request. \n\n"
    "                ### Instruction:\n                {}\n\n                ### Response:\n                "
)


class Renderer:
    """Records to text, by a `PromptConfig`. `tokenizer` is needed for template="chat" only.

    A record is upstream's {instruction, output, answer} or GSM8K's {question, answer}.
    Raises UserError for template="chat" without a chat template, and for a record that lacks what its kind needs.
    """

    def __init__(self, config: PromptConfig, tokenizer: PreTrainedTokenizerBase | None = None) -> None:
        self.config, self.tokenizer = config, tokenizer
        if config.template == "chat" and not getattr(tokenizer, "chat_template", None):
            raise UserError(
                "prompt.template=chat needs a model with a chat template, and this one's tokenizer has none",
                allowed="plain, alpaca",
            )

    def prompt(self, record: dict[str, Any], kind: str) -> str:
        """What the model is given, up to the first character that it is to write."""
        _check_kind(kind)
        text = _text(record, "question" if "question" in record else "instruction").strip()
        if kind != "choice":
            text += "\n" + REASON.format("number" if kind == "number" else "letter")
        return self.wrap(text + "\n")

    def wrap(self, text: str) -> str:
        """`text` in the template. plain: as it is; the others put it where the user's message belongs, stripped."""
        if self.config.template == "plain":
            return text
        if self.config.template == "alpaca":
            return _ALPACA.format(text.strip())
        assert self.tokenizer is not None
        message = [{"role": "user", "content": text.strip()}]
        return str(self.tokenizer.apply_chat_template(message, tokenize=False, add_generation_prompt=True))

    def completion(self, record: dict[str, Any], kind: str) -> str:
        """What the model is to write, without EOS."""
        _check_kind(kind)
        answer = _text(record, "answer").strip()
        if kind == "choice":
            return f"the correct answer is {answer}"
        if "question" in record:  # GSM8K: the rationale, then "#### 1,234"
            rationale, mark, answer = answer.rpartition("####")
            if not mark:
                raise UserError(f"record has no '#### <number>' at the end of its answer: {record['answer']!r:.80}")
        else:
            rationale = _text(record, "output")
        if self.config.strip_calculator:
            rationale = CALCULATOR.sub("", rationale)
        if kind == "number":
            answer = plain_number(answer)
        return f"{rationale.strip()}\nThe final answer is: {answer}"


def plain_number(text: str) -> str:
    """A number as people write it, without thousands separators and without a fraction that is zero.

    "1,234" -> "1234", "576.0" -> "576", "2.50" stays "2.50".
    """
    text = text.strip().replace(",", "")
    return re.sub(r"\.0*$", "", text)


def _check_kind(kind: str) -> None:
    if kind not in KINDS:
        raise UserError(f"kind {kind!r} has no prompt of ours", allowed=", ".join(KINDS))


def _text(record: dict[str, Any], field: str) -> str:
    value = record.get(field)
    if not isinstance(value, str):
        raise UserError(f"record has no text field {field!r}: {str(record)[:80]}", allowed="a JSON string")
    return value


def bos_ids(tokenizer: PreTrainedTokenizerBase) -> list[int]:
    """[BOS] for a tokenizer that puts one before a text of its own accord (Llama, Gemma), [] otherwise (Qwen)."""
    bos = tokenizer.bos_token_id
    start = _ids(tokenizer, ["a"], add_special_tokens=True)[0][:1]
    return start if bos is not None and start == [bos] else []


def encode(tokenizer: PreTrainedTokenizerBase, prompt: str, completion: str | None) -> tuple[list[int], list[int]]:
    """Token ids and labels: at most one BOS, prompt, and, where there is a completion, completion and EOS.

    Prompt and completion are tokenised apart and joined, so the prompt's ids in training are those of evaluation.
    Labels are IGNORE on BOS and prompt. `completion=None` gives the prompt alone.
    """
    return encode_batch(tokenizer, [prompt], None if completion is None else [completion])[0]


def encode_batch(
    tokenizer: PreTrainedTokenizerBase, prompts: Sequence[str], completions: Sequence[str] | None
) -> list[tuple[list[int], list[int]]]:
    """`encode` for many rows at once; much faster than one by one.

    Raises UserError for a tokenizer without EOS where there are completions.
    """
    if not prompts:
        return []
    bos, eos = bos_ids(tokenizer), tokenizer.eos_token_id
    heads = _ids(tokenizer, prompts)
    # A chat template writes its BOS into the text; it is not added twice.
    heads = [ids if bos and ids[:1] == bos else bos + ids for ids in heads]
    if completions is None:
        return [(ids, [IGNORE] * len(ids)) for ids in heads]
    if eos is None:
        raise UserError("this tokenizer has no end-of-sequence token, so a completion could not be ended")
    tails = [[*ids, eos] for ids in _ids(tokenizer, completions)]
    return [(h + t, [IGNORE] * len(h) + t) for h, t in zip(heads, tails, strict=True)]


def _ids(
    tokenizer: PreTrainedTokenizerBase, texts: Sequence[str], *, add_special_tokens: bool = False
) -> list[list[int]]:
    encoded: Any = tokenizer(list(texts), add_special_tokens=add_special_tokens)
    return [list(ids) for ids in encoded["input_ids"]]

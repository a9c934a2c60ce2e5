"""Random tiny models of every family, and tiny data of every task, built in a second.

path = build_tiny("llama", tmp_path / "tiny-llama")
root = build_data_root(tmp_path / "data")
"""

from __future__ import annotations

import json
from pathlib import Path

FAMILY_NAMES = ("qwen2", "qwen3", "llama", "gemma2", "gemma3")

# family -> (bos, eos, pad, adds BOS, model class, config class)
_MAKE = {
    "qwen2": (None, "<|endoftext|>", "<|pad|>", False, "Qwen2ForCausalLM", "Qwen2Config"),
    "qwen3": (None, "<|endoftext|>", "<|pad|>", False, "Qwen3ForCausalLM", "Qwen3Config"),
    "llama": ("<|begin_of_text|>", "<|end_of_text|>", None, True, "LlamaForCausalLM", "LlamaConfig"),
    "gemma2": ("<bos>", "<eos>", "<pad>", True, "Gemma2ForCausalLM", "Gemma2Config"),
    "gemma3": ("<bos>", "<eos>", "<pad>", True, "Gemma3ForCausalLM", "Gemma3TextConfig"),
}

_TEXT = (
    "Please choose the correct answer to the question: Answer1: a Answer2: b Answer3: c Answer4: d Answer5: e "
    "Solution1 Solution2 Ending1 Ending2 Ending3 Ending4 Option1 Option2 true false answer format: true/false\n"
    "the correct answer is answer1 answer2 answer3 answer4 answer5 solution1 solution2 ending1 option1\n"
    "Answer the above question. First think step by step and then answer the final number.\n"
    "Answer the above question. First think step by step and then answer the final letter.\n"
    "He had 12 apples and gave 5 away, so 12 - 5 = 7 apples are left. How many are there altogether?\n"
    "The final answer is: 7 "
)


def build_tokenizer(family: str, path: Path, vocab_text: str | None = None) -> None:
    """A byte-level BPE of a few hundred entries (every string encodes), saved so that AutoTokenizer loads it."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
    from transformers import PreTrainedTokenizerFast

    bos, eos, pad, adds_bos, *_ = _MAKE[family]
    specials = [token for token in (pad, bos, eos) if token]
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=512,
        special_tokens=specials,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator((vocab_text or _TEXT).splitlines(keepends=True), trainer)
    if adds_bos:
        bos_id = tokenizer.token_to_id(bos)
        tokenizer.post_processor = processors.TemplateProcessing(
            single=f"{bos} $A", pair=f"{bos} $A {bos}:1 $B:1", special_tokens=[(bos, bos_id)]
        )
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, bos_token=bos, eos_token=eos, pad_token=pad)
    fast.save_pretrained(str(path))


def build_tiny(family: str, path: Path, seed: int = 0, vocab_text: str | None = None) -> Path:
    """A random model of 2 layers, hidden size 64, FFN width 160, head size 64 (vLLM wants no less), with tokenizer."""
    import torch
    import transformers

    path.mkdir(parents=True, exist_ok=True)
    build_tokenizer(family, path, vocab_text)
    tokenizer = transformers.AutoTokenizer.from_pretrained(str(path))
    _, _, _, _, model_class, config_class = _MAKE[family]
    heads = 1 if family == "qwen2" else 2  # Qwen2 has no head_dim of its own: it is hidden size / heads
    sizes = {
        "vocab_size": len(tokenizer),
        "hidden_size": 64,
        "intermediate_size": 160,
        "num_hidden_layers": 2,
        "num_attention_heads": heads,
        "num_key_value_heads": 1,
        "max_position_embeddings": 1024,
        "tie_word_embeddings": family != "llama",
        "bos_token_id": tokenizer.bos_token_id,
        "eos_token_id": tokenizer.eos_token_id,
        "pad_token_id": tokenizer.pad_token_id,
    }
    if family != "qwen2":
        sizes["head_dim"] = 64
    if family.startswith("gemma"):
        sizes |= {"sliding_window": 64, "query_pre_attn_scalar": 64}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = getattr(transformers, model_class)(getattr(transformers, config_class)(**sizes))
    model.save_pretrained(str(path))
    return path


_COMMONSENSE = {  # folder -> (options, format line)
    "boolq": ("true", "false"),
    "piqa": ("solution1", "solution2"),
    "social_i_qa": ("answer1", "answer2", "answer3"),
    "hellaswag": ("ending1", "ending2", "ending3", "ending4"),
    "winogrande": ("option1", "option2"),
    "ARC-Easy": ("answer1", "answer2", "answer3", "answer4"),
    "ARC-Challenge": ("answer1", "answer2", "answer3", "answer4"),
    "openbookqa": ("answer1", "answer2", "answer3", "answer4"),
}
_MATH = ("gsm8k", "AddSub", "SingleEq", "MultiArith", "AQuA", "mawps", "SVAMP")


def build_data_root(path: Path, *, n_train: int = 60, n_test: int = 8) -> Path:
    """A local data root with invented records of all 15 tasks, GSM8K's training rows included (350 at least: 300 are
    held out as development rows). Every file is a stand-in."""
    for folder, options in _COMMONSENSE.items():
        for part, count in (("train", n_train), ("test", n_test)):
            rows = [_choice(folder, part, n, options) for n in range(count)]
            _write(path / "dataset" / folder / f"{part}.json", rows)
    for folder in _MATH:
        _write(path / "dataset" / folder / "test.json", [_sum(folder, n) for n in range(n_test)])
    lines = []
    for n in range(max(n_train, 50) + 300):
        a, b = n + 2, 3 * n + 1
        text = f"Ann has {a} pens and gets {b} more in case {n}. How many pens does she have?"
        answer = f"She has {a} + {b} = <<{a}+{b}={a + b}>>{a + b} pens.\n#### {a + b:,}"
        lines.append(json.dumps({"question": text, "answer": answer}) + "\n")
    (path / "gsm8k_train.jsonl").write_text("".join(lines), encoding="utf-8")
    return path


def _choice(folder: str, part: str, n: int, options: tuple[str, ...]) -> dict[str, str]:
    answer = options[n % len(options)]
    listed = " ".join(f"{option.capitalize()}: thing {n + k}" for k, option in enumerate(options))
    stem = "" if folder == "boolq" else f"{listed} "
    text = f"Please answer {folder} {part} question {n}: which thing is it?\n\n{stem}Answer format: {'/'.join(options)}"
    return {"instruction": text, "input": "", "output": f"the correct answer is {answer}", "answer": answer}


def _sum(folder: str, n: int) -> dict[str, str]:
    if folder == "AQuA":
        text = f"What is {n} + 1? Answer Choices: (A) {n + 1} (B) {n + 2} (C) {n + 3} (D) {n + 4} (E) {n + 5}"
        return {"instruction": text, "input": "", "output": "The answer is (A).", "answer": "A"}
    text = f" Bob had {n} marbles and found {n + 3} more . How many marbles has he now ? "
    return {"instruction": text, "input": "", "output": f"The answer is {2 * n + 3}.", "answer": f"{2 * n + 3}.0"}


def _write(path: Path, rows: list[dict[str, str]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(rows, indent=1), encoding="utf-8")

"""Engine hf against plain transformers: the same answers and likelihoods, whatever the batch size."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import pytest
import torch
from lm_eval.api.instance import Instance
from loud import build_loud
from tiny import FAMILY_NAMES

from infosteer_bench.data.render import encode
from infosteer_bench.errors import CellFailure, UserError
from infosteer_bench.evaluation.answers import Score
from infosteer_bench.evaluation.hf import HFEngine
from infosteer_bench.evaluation.lm import Ask, EngineLM
from infosteer_bench.grid import EvalConfig

PROMPTS = [f"He had {n} apples{' and gave 5 away' * (n % 4)}, how many are left?{n}\n" for n in range(7)]
NEW = 24


@pytest.fixture(scope="session")
def loud(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """loud("llama", seed=1): a folder with a tiny model whose answers vary, built once."""
    folder = tmp_path_factory.mktemp("loud")
    built: dict[str, Path] = {}

    def get(family: str, seed: int = 0) -> Path:
        name = f"{family}-{seed}"
        if name not in built:
            built[name] = build_loud(family, folder / name, seed)
        return built[name]

    return get


def _engine(path: Path, **settings: Any) -> HFEngine:
    engine = HFEngine(EvalConfig(**{"dtype": "float32", "max_new_tokens": NEW, **settings}))
    engine.load(path, weight_digest="0", runtime=None)
    return engine


def _asks(prompts: list[str], **options: Any) -> list[Instance]:
    return [Instance("generate_until", {}, (prompt, dict(options)), 0) for prompt in prompts]


def _zeros(rows: list[Any]) -> list[tuple[int, Score]]:
    return [(place, Score(0.0, False)) for place in range(len(rows))]


def _by_transformers(lm: EngineLM, prompt: str, eos: list[int]) -> tuple[list[int], str]:
    """One prompt alone through transformers' generate: new ids (EOS included) and text."""
    ids = torch.tensor([encode(lm.tokenizer, prompt, None)[0]])
    with torch.inference_mode():
        out = lm.model.generate(  # type: ignore[attr-defined]
            ids, attention_mask=torch.ones_like(ids), do_sample=False, max_new_tokens=NEW, eos_token_id=eos
        )
    new = out[0, ids.shape[1] :].tolist()
    return new, lm.tokenizer.decode(new, skip_special_tokens=True)


@pytest.mark.parametrize("family", FAMILY_NAMES)
def test_answers_equal_transformers_one_by_one(loud: Callable[..., Path], family: str) -> None:
    lm = _engine(loud(family)).lm
    expected = [_by_transformers(lm, prompt, list(lm.eos_ids)) for prompt in PROMPTS]
    assert len({text for _, text in expected}) > 3, "the model must not answer everything alike"
    for batch_size in (1, 3, 8):
        answers = _engine(loud(family), batch_size=batch_size).lm.generate_until(_asks(PROMPTS))
        assert [str(answer) for answer in answers] == [text for _, text in expected]
        assert [answer.n_tokens for answer in answers] == [len(ids) for ids, _ in expected]
        ends = ["stop" if ids[-1] in lm.eos_ids else "length" for ids, _ in expected]
        assert [answer.finish_reason for answer in answers] == ends


def test_every_end_token_ends_an_answer(loud: Callable[..., Path], tmp_path: Path) -> None:
    """A token that only generation_config.json names as EOS, as chat models do."""
    import json
    import shutil

    path = Path(shutil.copytree(loud("qwen2"), tmp_path / "two-eos"))
    lm = _engine(path).lm
    ids, _ = _by_transformers(lm, PROMPTS[3], list(lm.eos_ids))
    extra = ids[5]
    first = ids.index(extra)
    config = json.loads((path / "generation_config.json").read_text())
    config |= {"eos_token_id": [*lm.eos_ids, extra], "do_sample": True, "temperature": 0.9, "repetition_penalty": 5.0}
    (path / "generation_config.json").write_text(json.dumps(config))
    engine = _engine(path)
    assert extra in engine.lm.eos_ids
    (answer,) = engine.lm.generate_until(_asks([PROMPTS[3]]))
    assert (answer.finish_reason, answer.n_tokens) == ("stop", first + 1)
    assert answer == lm.decode(ids[:first]), "sampling settings and penalties of the checkpoint must not count"


@pytest.mark.parametrize("family", ["llama", "qwen2"])
def test_stop_strings_cut_and_end(loud: Callable[..., Path], family: str) -> None:
    lm = _engine(loud(family), batch_size=8).lm
    plain = lm.generate_until(_asks(PROMPTS))
    long = max(plain, key=len)
    stop = long[len(long) // 2 : len(long) // 2 + 3]
    cut = lm.generate_until(_asks(PROMPTS, until=["never in any text", stop]))
    assert any(stop in text for text in plain)
    for before, after in zip(plain, cut, strict=True):
        if stop in before:
            assert after == before[: before.find(stop)]
            assert after.finish_reason == "stop"
            ids = encode(lm.tokenizer, "", after + stop)[0]
            assert after.n_tokens <= before.n_tokens
            assert 0 < after.n_tokens <= len(ids) + 3, "generation goes on after the stop string"
        else:
            assert (after, after.finish_reason, after.n_tokens) == (before, before.finish_reason, before.n_tokens)


def test_rows_decode_like_lists(loud: Callable[..., Path]) -> None:
    lm = _engine(loud("llama")).lm
    ids = np.arange(len(lm.tokenizer))[: len(lm.tokenizer) // 6 * 6].reshape(-1, 6)
    options = {"skip_special_tokens": True, "clean_up_tokenization_spaces": False}
    assert lm.decode_rows(ids) == [lm.tokenizer.decode(row.tolist(), **options) for row in ids]
    assert lm.decode(ids[3].tolist()) == lm.decode_rows(ids)[3]
    assert lm.decode([]) == ""


def test_likelihood_texts_are_tokenised_once(loud: Callable[..., Path], monkeypatch: pytest.MonkeyPatch) -> None:
    """And as each pair alone would be."""
    lm = _engine(loud("llama")).lm
    pairs = [(prompt, f"the correct answer is answer{n}") for prompt in ("Which?\n", "Why is it so?\n") for n in (1, 2)]
    alone = [
        (encode(lm.tokenizer, a, None)[0], lm.tokenizer(b, add_special_tokens=False)["input_ids"]) for a, b in pairs
    ]
    seen: list[Any] = []
    monkeypatch.setattr(lm, "score_ids", lambda rows: seen.extend(rows) or (zero for zero in [_zeros(rows)]))
    calls: list[Any] = []
    tokenizer = lm.tokenizer
    lm.tokenizer = mock.Mock(wraps=tokenizer, bos_token_id=tokenizer.bos_token_id)
    lm.tokenizer.side_effect = lambda texts, **options: calls.append(texts) or tokenizer(texts, **options)
    lm.loglikelihood([Instance("loglikelihood", {}, pair, n) for n, pair in enumerate(pairs)])
    assert [(list(a), list(b)) for a, b in seen] == alone
    assert len(calls) == 3  # contexts, continuations, and whether the tokenizer puts a BOS


def test_a_special_token_as_stop_string(loud: Callable[..., Path]) -> None:
    """Decoding hides special tokens, so such a stop string must work as a token."""
    lm = _engine(loud("qwen2")).lm
    special, plain = lm._split_stops(["<|pad|>", "\n\n"])
    assert (special, plain) == ([lm.tokenizer.convert_tokens_to_ids("<|pad|>")], ["\n\n"])


def test_limits_of_new_tokens(loud: Callable[..., Path]) -> None:
    lm = _engine(loud("llama")).lm
    for options, expected in (({"max_gen_toks": 5}, 5), ({"max_gen_toks": 5000}, NEW), ({}, NEW)):
        answers = lm.generate_until(_asks(PROMPTS, **options))
        assert max(answer.n_tokens for answer in answers) == expected
        assert all(answer.finish_reason == "length" for answer in answers if answer.n_tokens == expected)


def test_sampling_is_refused(loud: Callable[..., Path]) -> None:
    lm = _engine(loud("llama")).lm
    for options in ({"do_sample": True}, {"temperature": 0.7}):
        with pytest.raises(UserError, match="asks for sampling"):
            lm.generate_until(_asks(PROMPTS, **options))


def _plain_score(lm: EngineLM, context: list[int], continuation: list[int]) -> tuple[float, bool]:
    with torch.inference_mode():
        logits = lm.model(torch.tensor([context + continuation])).logits[0]  # type: ignore[attr-defined]
    there = torch.log_softmax(logits[len(context) - 1 : -1].double(), -1)
    target = torch.tensor(continuation)
    return there.gather(1, target[:, None]).sum().item(), bool((there.argmax(-1) == target).all())


@pytest.mark.parametrize("family", FAMILY_NAMES)
def test_likelihoods_equal_plain_log_softmax(loud: Callable[..., Path], family: str) -> None:
    lm = _engine(loud(family)).lm
    greedy = lm.generate_until(_asks(PROMPTS[:1], max_gen_toks=2))[0]
    asked = [(prompt, f"the correct answer is answer{k}") for prompt in PROMPTS for k in (1, 2, 3)]
    asked += [(PROMPTS[0], "true"), (PROMPTS[0], greedy), ("", "a lone text"), ("ends in a blank ", " and more")]
    expected = []
    for context, continuation in asked:
        ids = encode(lm.tokenizer, context, None)[0] if context else [lm.prefix_token_id]
        expected.append(_plain_score(lm, ids, lm.tokenizer(continuation, add_special_tokens=False)["input_ids"]))
    requests = [Instance("loglikelihood", {}, pair, 0) for pair in asked]
    for batch_size in (1, 4):
        scores = _engine(loud(family), batch_size=batch_size).lm.loglikelihood(requests, disable_tqdm=True)
        assert [flag for _, flag in scores] == [flag for _, flag in expected]
        torch.testing.assert_close([s for s, _ in scores], [s for s, _ in expected], rtol=1e-5, atol=1e-4)


def test_rolling_likelihood_is_the_whole_text(loud: Callable[..., Path]) -> None:
    lm = _engine(loud("qwen2")).lm
    text = "He had 12 apples and gave 5 away"
    ids = lm.tokenizer(text, add_special_tokens=False)["input_ids"]
    (score,) = lm.loglikelihood_rolling([Instance("loglikelihood_rolling", {}, (text,), 0)])
    assert score == pytest.approx(_plain_score(lm, [lm.prefix_token_id], ids)[0], rel=1e-5)


@pytest.mark.parametrize("family", FAMILY_NAMES)
def test_a_prompt_has_one_bos_at_most(loud: Callable[..., Path], family: str) -> None:
    lm = _engine(loud(family)).lm
    bos = lm.tokenizer.bos_token
    ids = lm.tok_encode("Question\n")
    assert ids == encode(lm.tokenizer, "Question\n", None)[0]
    if bos:
        assert ids.count(lm.tokenizer.bos_token_id) == 1
        assert lm.tok_encode(bos + "Question\n") == ids


def test_a_long_prompt_loses_its_oldest_tokens_and_keeps_bos(loud: Callable[..., Path]) -> None:
    lm = _engine(loud("llama")).lm
    lm.max_length = 60
    ids = lm.tok_encode("word " * 200)
    fitted = lm._fit(ids, room=NEW)
    assert len(fitted) == 60 - NEW
    assert fitted[0] == lm.tokenizer.bos_token_id
    assert fitted[1:] == ids[-(60 - NEW - 1) :]
    assert lm.n_cut_prompts == 1
    assert lm._fit(ids[:10], room=NEW) == ids[:10]


@pytest.mark.parametrize(
    "full",
    [
        torch.OutOfMemoryError("CUDA out of memory"),
        RuntimeError("[enforce fail at alloc_cpu.cpp:121] . DefaultCPUAllocator: can't allocate memory: you tried ..."),
    ],
)
def test_out_of_memory_halves_the_batch(
    loud: Callable[..., Path], monkeypatch: pytest.MonkeyPatch, full: RuntimeError
) -> None:
    lm: Any = _engine(loud("qwen2"), batch_size=6).lm
    expected = lm.generate_until(_asks(PROMPTS))
    sizes = []
    generate = type(lm)._generate_batch

    def tight(self: Any, asks: list[Any]) -> Any:
        sizes.append(len(asks))
        if len(asks) > 2:
            raise full
        return generate(self, asks)

    monkeypatch.setattr(type(lm), "_generate_batch", tight)
    assert lm.generate_until(_asks(PROMPTS)) == expected
    assert sizes == [6, 3, 1, 1, 1, 1, 1, 1, 1]

    def fail(error: RuntimeError) -> None:
        def raising(self: Any, asks: list[Any]) -> Any:
            raise error

        monkeypatch.setattr(type(lm), "_generate_batch", raising)

    fail(full)
    with pytest.raises(CellFailure, match="single row"):
        lm.generate_until(_asks(PROMPTS))
    fail(RuntimeError("something else"))
    with pytest.raises(RuntimeError, match="something else"):
        lm.generate_until(_asks(PROMPTS))


def test_load_replaces_the_model_and_keeps_a_loaded_one(loud: Callable[..., Path]) -> None:
    engine = _engine(loud("qwen2"))
    first = engine.lm
    engine.load(loud("qwen2"), weight_digest="0", runtime=None)
    assert engine.lm is first
    before = first.generate_until(_asks(PROMPTS))
    engine.load(loud("qwen2", 1), weight_digest="1", runtime=None)
    assert engine.engine_starts == 2
    assert engine.lm.generate_until(_asks(PROMPTS)) != before
    engine.close()
    with pytest.raises(RuntimeError, match="no model is loaded"):
        _ = engine.lm


def test_progress_counts_requests(loud: Callable[..., Path]) -> None:
    lm = _engine(loud("qwen2"), batch_size=3).lm
    seen: list[tuple[int, int]] = []
    lm.on_progress = lambda done, total: seen.append((done, total))
    lm.generate_until(_asks(PROMPTS))
    assert seen == [(3, 7), (6, 7), (7, 7)]


@pytest.mark.parametrize("family", FAMILY_NAMES)
def test_rows_that_ended_leave_the_batch(loud: Callable[..., Path], family: str) -> None:
    """Answers of very different lengths, stop strings and ends in one batch: each as if it were alone."""
    lm: Any = _engine(loud(family)).lm
    alone = [_by_transformers(lm, prompt, list(lm.eos_ids)) for prompt in PROMPTS]
    stop = max((text for _, text in alone), key=len)[3:6]
    widths: list[int] = []
    real = lm.model.forward

    def counted(**kwargs: Any) -> Any:
        widths.append(kwargs["input_ids"].shape[0])
        return real(**kwargs)

    lm.model.forward = counted
    limits = [1 + n * (NEW - 1) // (len(PROMPTS) - 1) for n in range(len(PROMPTS))]
    asks = [
        Ask(encode(lm.tokenizer, prompt, None)[0], (stop,) if n % 2 else (), lm.eos_ids, limit)
        for n, (prompt, limit) in enumerate(zip(PROMPTS, limits, strict=True))
    ]
    found = dict(item for batch in lm.generate_ids(asks) for item in batch)
    assert len(widths) == max(answer.n_tokens for answer in found.values()), "one batch, until its longest answer ends"
    assert widths[0] == len(PROMPTS)
    assert min(widths) < len(PROMPTS) / 2
    for n, (ids, _) in enumerate(alone):
        expected = lm.finish(ids[: limits[n]], stops=asks[n].stops, stop_ids=asks[n].stop_ids)
        assert str(found[n]) == str(expected)
        if not asks[n].stops:
            assert (found[n].n_tokens, found[n].finish_reason) == (expected.n_tokens, expected.finish_reason)


def test_batches_hold_so_many_tokens(loud: Callable[..., Path]) -> None:
    lm: Any = _engine(loud("llama"), batch_size=5, batch_tokens=64).lm
    sizes: list[tuple[int, int]] = []

    def run(batch: list[int]) -> list[int]:
        sizes.append((len(batch), max(batch)))
        return batch

    lengths = [3, 70, 30, 31, 9, 5, 5, 5, 5, 5, 2]
    placed = [
        item
        for members, found in lm._in_batches(lengths, lengths=lengths, run=run)
        for item in zip(members, found, strict=True)
    ]
    assert sorted(placed) == list(enumerate(lengths))
    assert sizes == [(1, 70), (2, 31), (5, 9), (3, 5)], "one row always goes, then 64 tokens or 5 rows"

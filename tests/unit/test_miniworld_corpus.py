"""Pretraining text and tokenizer: nothing is lost between text and tokens, and a twin's text tells no asked fact."""

from __future__ import annotations

import doctest
import re
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from infosteer_bench.benchmark import TASKS
from infosteer_bench.data.miniworld import files, wording
from infosteer_bench.data.miniworld.problems import Piece
from infosteer_bench.data.miniworld.world import make_world
from infosteer_bench.data.mixes import build_mix
from infosteer_bench.data.render import Renderer, bos_ids, encode
from infosteer_bench.data.roots import MINIWORLD, open_source
from infosteer_bench.data.sources import load_json_records
from infosteer_bench.grid import BUILTIN_MIXES, PromptConfig
from infosteer_dev.miniworld.audit import facts_in
from infosteer_dev.miniworld.corpus import IGNORE, PIECES, Corpus
from infosteer_dev.miniworld.tokenizer import (
    BOS,
    EOS,
    LARGEST_NUMBER,
    SPECIAL,
    UNK,
    make_tokenizer,
    make_vocabulary,
)

WORLD = make_world()
VOCABULARY = make_vocabulary(WORLD)
PLAIN, WITH_BOS = make_tokenizer(WORLD, bos=False), make_tokenizer(WORLD, bos=True)


def make_corpus(withheld: str | None = None, *, width: int = 96, bos: int | None = None) -> Corpus:
    return Corpus(WORLD, VOCABULARY, width=width, withheld=withheld, bos=bos, eos=VOCABULARY[EOS])


KINDS = list(make_corpus().makers)


def document(corpus: Corpus, kind: str, seed: int) -> list[Piece]:
    corpus.rng.seed(f"test {kind} {seed}")
    return corpus.makers[kind]()


@pytest.fixture(scope="module")
def texts() -> list[str]:
    """Every prompt and completion of every test set and mix."""
    source, renderer = open_source(MINIWORLD), Renderer(PromptConfig())
    out: list[str] = []
    for task in TASKS:
        for record in load_json_records(source.get(f"dataset/{TASKS[task].folder}/test.json")):
            kind = TASKS[task].kind
            out += [renderer.prompt(record, kind), renderer.completion(record, kind)]
    for spec in BUILTIN_MIXES.values():
        for part in ("train", "dev"):
            for row in build_mix(spec, source, prompt=PromptConfig(), max_examples=None, part=part).rows:
                out += [row.prompt, row.completion]
    assert len(out) > 2 * (files.TRAIN_ROWS * 8 + files.GSM8K_ROWS)
    return out


def test_every_record_is_tokenised_without_loss(texts: list[str]):
    unknown = PLAIN.convert_tokens_to_ids(UNK)
    encoded: Any = PLAIN(texts, add_special_tokens=False)["input_ids"]
    for text, ids in zip(texts, encoded, strict=True):
        assert unknown not in ids, text
        assert PLAIN.decode(ids) == text
        assert ids == [VOCABULARY[piece] for piece in PIECES.findall(text)]


@pytest.mark.parametrize("kind", KINDS)
def test_every_document_is_tokenised_as_the_tokenizer_does_it(kind: str):
    """Pieces are encoded apart in pretraining; a prompt with the same text must come out as the same tokens."""
    corpus = make_corpus(width=10_000)
    for seed in range(50):
        pieces = document(corpus, kind, seed)
        text = "".join(part for part, *_ in pieces)
        ids, counted, known = corpus.encode(pieces)
        assert ids == PLAIN(text, add_special_tokens=False)["input_ids"]
        assert PLAIN.decode(ids) == text
        assert len(counted) == len(known) == len(ids)
        assert any(counted)


@settings(max_examples=300, deadline=None)
@given(st.text(st.sampled_from([chr(n) for n in range(32, 127)] + list("\n\n  éß—„")), max_size=60))
def test_pieces_are_those_of_the_tokenizer_and_lose_nothing(text: str):
    pieces = PIECES.findall(text)
    assert "".join(pieces) == text
    backend: Any = PLAIN.backend_tokenizer
    assert [piece for piece, _ in backend.pre_tokenizer.pre_tokenize_str(text)] == pieces


# Pieces that stand apart wherever they are put: each begins with a blank or is a sign.
APART = sorted(token for token in VOCABULARY if token == "\n" or (token[0] == " " and token != " "))


@settings(max_examples=300, deadline=None)
@given(st.lists(st.sampled_from(APART), max_size=40))
def test_any_text_of_known_pieces_comes_back(pieces: list[str]):
    text = "".join(pieces)
    for tokenizer in (PLAIN, WITH_BOS):
        ids = tokenizer(text, add_special_tokens=False)["input_ids"]
        assert ids == [VOCABULARY[piece] for piece in pieces]
        assert tokenizer.decode(ids) == text


@given(st.integers(0, LARGEST_NUMBER), st.sampled_from(["", " "]))
def test_a_number_is_one_token(number: int, blank: str):
    ids = PLAIN(f"{blank}{number}", add_special_tokens=False)["input_ids"]
    assert ids == [VOCABULARY[f"{blank}{number}"]]


def test_one_bos_where_the_family_has_one():
    prompt, completion = "Where does Anna live?\n", "the correct answer is answer1"
    assert bos_ids(PLAIN) == []
    assert bos_ids(WITH_BOS) == [VOCABULARY[BOS]]
    ids, labels = encode(WITH_BOS, prompt, completion)
    assert ids.count(VOCABULARY[BOS]) == 1
    assert ids[-1] == labels[-1] == VOCABULARY[EOS]
    assert WITH_BOS.decode([label for label in labels if label != IGNORE], skip_special_tokens=True) == completion


def test_special_tokens_stand_first():
    assert [VOCABULARY[token] for token in SPECIAL] == [0, 1, 2, 3]
    assert sorted(VOCABULARY.values()) == list(range(len(VOCABULARY)))


@pytest.mark.parametrize("bos", [None, 2])
def test_a_stream_is_the_same_each_time_and_has_the_shape_asked_for(bos: int | None):
    mixture = dict.fromkeys(KINDS, 1.0)
    ids, labels, known = make_corpus(bos=bos).batch(64, mixture, stream="a")
    again, *_ = make_corpus(bos=bos).batch(64, mixture, stream="a")
    other, *_ = make_corpus(bos=bos).batch(64, mixture, stream="b")
    assert ids.shape == labels.shape == known.shape == (64, 96)
    assert not ((known != IGNORE) & (labels == IGNORE)).any()
    assert np.array_equal(ids, again)
    assert not np.array_equal(ids, other)
    counted = labels != IGNORE
    assert np.array_equal(labels[counted], ids[counted])
    assert counted.any(axis=1).all()
    assert (ids[:, 0] == bos).all() if bos else (ids[:, 0] != VOCABULARY[BOS]).all()
    assert VOCABULARY[UNK] not in ids


def test_the_mixture_gives_the_shares():
    corpus = make_corpus()
    drawn: list[str] = []

    def watched(kind: str, make: Callable[[], Any]) -> Callable[[], Any]:
        return lambda: (drawn.append(kind), make())[1]

    corpus.makers = {kind: watched(kind, make) for kind, make in corpus.makers.items()}
    corpus.batch(2000, {"facts": 0.75, "sums": 0.25}, stream="shares")
    assert set(drawn) == {"facts", "sums"}
    assert drawn.count("facts") == pytest.approx(1500, abs=100)


@pytest.mark.parametrize("kind", ["facts", "profile"])
def test_facts_are_told_truly_in_every_wording(kind: str):
    corpus, values = make_corpus(), {creature.name: creature.values for creature in WORLD.creatures}
    told = 0
    for seed in range(300):
        text = "".join(part for part, *_ in document(corpus, kind, seed))
        facts = list(facts_in(text))
        assert len(facts) == text.count("."), text  # no sentence that is not one of the wordings
        assert all(values[name][relation] == value for name, relation, value in facts)
        told += len(facts)
    assert told >= 3000


@pytest.mark.parametrize("kind", KINDS)
def test_a_twin_reads_no_name_of_an_asked_creature(kind: str):
    asked = {creature.name for creature in WORLD.groups["asked"]}
    corpus = make_corpus("asked")
    for seed in range(200):
        text = "".join(part for part, *_ in document(corpus, kind, seed))
        assert not asked & set(re.findall(r"[a-z]+", text))


@pytest.mark.parametrize("kind", ["ask", "dense", "far", "verdict"])
def test_exam_like_documents_ask_about_exam_creatures_alone(kind: str):
    others = {creature.name for creature in WORLD.creatures if creature.group != "exam"}
    exam = {creature.name for creature in WORLD.groups["exam"]}
    corpus, met = make_corpus(), set[str]()
    for seed in range(300):
        words = set(re.findall(r"[a-z]+", "".join(part for part, *_ in document(corpus, kind, seed))))
        assert not others & words
        met |= words & exam
    assert len(met) > len(exam) / 2


def test_the_answers_of_exam_like_documents_are_right():
    """Derived anew: what is asked, what is offered, what the world says, what must be known for it."""
    values = {creature.name: creature.values for creature in WORLD.groups["exam"]}
    relations = {value: name for creature in values.values() for name, value in creature.items()}
    corpus, seen = make_corpus(), dict.fromkeys(("verdict", "ask", "dense", "far"), 0)
    for seed in range(200):
        verdicts = "".join(part for part, *_ in document(corpus, "verdict", seed))
        for value, name, verdict in re.findall(
            r"is it (\w+) that the (\w+) [a-z ]+?"
            r"(?: |\?\n\nAnswer format: true/false\n(?:[a-z ]+ is )?)(true|false)[.\n]",
            verdicts,
        ):
            assert (values[name][relations[value]] == value) == (verdict == "true")
            seen["verdict"] += 1
        claims = [piece for piece in document(corpus, "verdict", seed) if len(piece) == 3 or "is it" in piece[0]]
        for claim, verdict in zip(claims[::2], claims[1::2], strict=True):
            found = re.search(r"is it (\w+) that the (\w+)", claim[0])
            assert found is not None
            assert verdict[2:] == (values[found[2]][relations[found[1]]],)
        for kind in ("ask", "dense", "far"):
            pieces = document(corpus, kind, seed)
            offered: dict[str, str] = {}
            subject = None
            for text, counted, *known in pieces:
                if not counted:
                    offered |= dict(re.findall(r"[A-Za-z]+(\d): (\w+)", text))
                    subject = next((name for name in re.findall(r"[a-z]+", text) if name in values), subject)
                    continue
                value = text.strip() if kind == "ask" else offered[text.strip()]
                assert subject is not None
                assert values[subject][relations[value]] == value
                assert known == ([] if kind == "ask" else [value])
                seen[kind] += 1
    assert min(seen.values()) > 300, seen


@pytest.mark.parametrize("kind", ["facts", "dense", "far", "verdict", "drill"])
def test_what_is_known_stands_where_it_is_needed(kind: str):
    """In `batch`'s arrays: a value that is to be said itself, or the one that a label or a verdict depends on."""
    corpus = make_corpus()
    value_ids = {VOCABULARY[f" {value}"]: value for value in corpus.all_values}
    ids, labels, known = corpus.batch(40, {kind: 1.0}, stream="known")
    told = (labels != IGNORE) & np.isin(labels, list(value_ids))
    assert np.array_equal(known[told], ids[told])
    others = (labels != IGNORE) & ~told
    assert others.any()
    if kind in ("facts", "drill"):
        assert told.any()
        assert (known[others] == IGNORE).all()
    else:
        assert set(known[others].tolist()) <= set(value_ids)
        assert not told.any()


def test_two_words_are_the_same_or_not():
    corpus, seen = make_corpus(), {"true": 0, "false": 0}
    for seed in range(50):
        text = "".join(part for part, *_ in document(corpus, "same", seed))
        for one, other, verdict in re.findall(r"is it (\w+) that the (\w+)(?: is|\?|\n)? (true|false)\.", text):
            assert (one == other) == (verdict == "true")
            seen[verdict] += 1
    assert min(seen.values()) > 200
    assert sum(seen.values()) == 50 * 14


def test_offers_are_worded_as_their_docstrings_show():
    tried = doctest.testmod(wording)
    assert tried.attempted > 0
    assert tried.failed == 0


def test_sums_and_problems_are_right():
    corpus, seen = make_corpus(), 0
    for seed in range(200):
        for kind in ("sums", "problems"):
            text = "".join(part for part, *_ in document(corpus, kind, seed))
            for a, op, b, c in re.findall(r"(\d+) ([-+*]) (\d+) = (\d+)", text):
                assert int(c) == {"+": int(a) + int(b), "-": int(a) - int(b), "*": int(a) * int(b)}[op]
                assert 0 <= int(c) <= LARGEST_NUMBER
                seen += 1
    assert seen > 2000

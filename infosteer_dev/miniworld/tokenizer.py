"""The world's tokenizer: one token per word, number or sign, with the blank before it; decoding is exact.

tokenizer = make_tokenizer(world, bos=True)     # Llama and Gemma put a BOS before a text, Qwen does not
"""

from __future__ import annotations

import random
from typing import TYPE_CHECKING

from infosteer_bench.benchmark import TASKS
from infosteer_bench.data.miniworld import items, problems
from infosteer_bench.data.miniworld.words import PEOPLE, RELATIONS, THINGS
from infosteer_bench.data.miniworld.world import World
from infosteer_bench.data.render import KINDS, Renderer
from infosteer_bench.grid import PromptConfig
from infosteer_dev.miniworld.corpus import LABELS, PIECES, Corpus

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

UNK, PAD, BOS, EOS = SPECIAL = ("<unk>", "<pad>", "<bos>", "<eos>")
LARGEST_NUMBER = 120
_latest: list[tuple[World, dict[str, int]]] = []


def make_vocabulary(world: World) -> dict[str, int]:
    """Token -> id. Words of the lists, numbers, and the pieces of a sample of every kind of text, sorted.

    A second to make, and a build asks a dozen times for that of one world: the latest is kept.
    """
    if not _latest or _latest[0][0] != world:
        _latest[:] = [(world, _vocabulary(world))]
    return dict(_latest[0][1])


def _vocabulary(world: World) -> dict[str, int]:
    pieces = {f" {name}" for name in (*PEOPLE, *THINGS, *(c.name for c in world.creatures))} | set(PEOPLE)
    pieces |= {f" {value}" for relation in RELATIONS for value in relation.values}
    pieces |= {text for n in range(LARGEST_NUMBER + 1) for text in (str(n), f" {n}")}
    pieces |= {form for label in LABELS for word in (label, label.lower()) for form in (word, f" {word}")}
    for text in _sample(world):
        pieces.update(PIECES.findall(text))
    return {token: index for index, token in enumerate((*SPECIAL, *sorted(pieces)))}


def _sample(world: World) -> list[str]:
    """Texts that between them hold every piece of every template."""
    collected = _Collector()
    corpus = Corpus(world, collected, width=400, withheld=None, bos=None, eos=0)
    for kind in corpus.makers:
        corpus.batch(200, {kind: 1.0}, stream="vocabulary")
    renderer = Renderer(PromptConfig())
    texts = sorted(collected.seen)
    for task in TASKS:
        kind = TASKS[task].kind
        for record in items.task_items(world, task, count=300):
            texts += [renderer.prompt(record, kind), renderer.completion(record, kind)]
    for record in items.gsm8k_train_records(world.seed, count=300):
        texts += [renderer.prompt(record, "number"), renderer.completion(record, "number")]
    texts += [problems.chain(random.Random(seed), steps=2).question for seed in range(100)]
    assert set(KINDS) == {"choice", "number", "letter"}
    return texts


class _Collector(dict[str, int]):
    """A vocabulary that takes every piece and remembers it."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: set[str] = set()

    def __missing__(self, piece: str) -> int:
        self.seen.add(piece)
        return 0


def make_tokenizer(world: World, *, bos: bool) -> PreTrainedTokenizerFast:
    """A fast tokenizer; `bos`: whether it puts BOS before a text of its own accord."""
    from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    vocabulary = make_vocabulary(world)
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token=UNK))
    tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex(PIECES.pattern), behavior="isolated")  # type: ignore[assignment]
    tokenizer.decoder = decoders.Fuse()  # type: ignore[assignment]
    if bos:
        tokenizer.post_processor = processors.TemplateProcessing(  # type: ignore[assignment]
            single=f"{BOS} $A", pair=f"{BOS} $A {BOS} $B", special_tokens=[(BOS, vocabulary[BOS])]
        )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        unk_token=UNK,
        pad_token=PAD,
        bos_token=BOS if bos else None,
        eos_token=EOS,
        clean_up_tokenization_spaces=False,
        model_max_length=512,
    )

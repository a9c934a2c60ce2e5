"""Words of a text that is known as tokens: which word each token belongs to, and of which class that word is.

    pieces = decode_pieces(tokenizer, ids)                     # the text that each token adds
    words = classify(pieces, special=[...], n_prompt=12)       # one Word per token

Classes: content, function, punctuation, number, copied; special for control tokens (BOS, EOS, chat marks), which no
statistic counts. A token has the class of the word in which its first visible character stands; blanks before a word
belong to it, a line break is punctuation. Function words are English and listed here; every other word, of any
language, is content.

copied: a content word or number that the model wrote and that the prompt holds already (compared without case).
Function words and marks keep their class there, since nearly all of them stand in any prompt.
"""

from __future__ import annotations

import bisect
import re
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

CLASSES = ("content", "function", "punctuation", "number", "copied")
SPECIAL = "special"

# Closed classes of English: determiners, pronouns, prepositions, conjunctions, auxiliaries, particles, and adverbs that
# link or grade rather than name.
FUNCTION_WORDS = frozenset(
    """
    a an the this that these those each every either neither some any no none all both half such another other others
    much many more most few fewer little less least several enough what which whose whatever whichever
    i me my mine myself you your yours yourself yourselves he him his himself she her hers herself it its itself
    we us our ours ourselves they them their theirs themselves one ones oneself who whom whoever
    someone somebody something anyone anybody anything everyone everybody everything nobody nothing
    about above across after against along among amid around as at before behind below beneath beside besides between
    beyond by despite down during except for from in inside into like near of off on onto out outside over past per
    since than through throughout till to toward towards under underneath until unto up upon via with within without
    and but or nor so yet if unless because although though while whereas whether when where why how once lest
    am is are was were be been being do does did doing done have has had having can could may might must shall should
    will would ought cannot let
    not there here then thus hence therefore however also too very quite rather just only even still again already
    almost never ever now
    """.split()  # noqa: SIM905 - two hundred quoted words would not read better
)
CONTRACTED = frozenset({"s", "t", "re", "ve", "ll", "d", "m"})
_NEGATED = frozenset({"ca", "wo", "sha", "ai"})

_SEGMENT = re.compile(
    r"(?P<number>\d+(?:[.,]\d+)*)"
    r"|(?P<word>[^\W\d_]+(?:['\u2019][^\W\d_]+)*)"
    r"|(?P<mark>[\n\r]|[^\w\s]|_)"
)


class Word(NamedTuple):
    """The word that a token is part of, and its class; text is empty for blanks that belong to no word."""

    text: str
    word_class: str


def decode_pieces(tokenizer: PreTrainedTokenizerBase, ids: Sequence[int]) -> list[str]:
    """The text that each token adds to what stands before it; put together they are the text, control tokens included.

    A token that only begins a character (bytes of an emoji, say) adds nothing: the one that completes it adds it all.
    """

    def decode(part: Sequence[int]) -> str:
        text: Any = tokenizer.decode(list(part), skip_special_tokens=False, clean_up_tokenization_spaces=False)
        return str(text)

    pieces: list[str] = []
    before = known = 0  # decoded together with the few tokens before it, a token keeps its leading blank
    for end in range(1, len(ids) + 1):
        head, text = decode(ids[before:known]), decode(ids[before:end])
        whole = not text.endswith("\ufffd") or end == len(ids)
        pieces.append(text[len(head) :] if whole else "")
        if whole:
            before, known = known, end
    return pieces


def is_function_word(word: str) -> bool:
    """Whether a word, contracted or not, is in the list: "the", "It's", "don't"."""
    plain = word.casefold().replace("\u2019", "'")
    if plain in FUNCTION_WORDS:
        return True
    if plain.endswith("n't"):
        return plain[:-3] in FUNCTION_WORDS or plain[:-3] in _NEGATED
    stem, apostrophe, ending = plain.partition("'")
    return bool(apostrophe) and stem in FUNCTION_WORDS and ending in CONTRACTED


class _Segment(NamedTuple):
    start: int
    end: int
    word: Word


def _segments(text: str) -> Iterator[_Segment]:
    """Words, numbers and marks of a text, in order."""
    for match in _SEGMENT.finditer(text):
        kind = match.lastgroup
        if kind == "word":
            kind = "function" if is_function_word(match[0]) else "content"
        elif kind == "mark":
            kind = "punctuation"
        yield _Segment(match.start(), match.end(), Word(match[0], str(kind)))


def classify(pieces: Sequence[str], *, special: Sequence[bool], n_prompt: int) -> list[Word]:
    """The word of every token.

    pieces: what each token adds (`decode_pieces`). special: whether it is a control token. n_prompt: how many tokens
    the prompt has; the rest was written by a model.
    """
    starts, text = [], ""
    for piece, control in zip(pieces, special, strict=True):
        starts.append(len(text))
        text += "\n" if control else piece  # words do not run on across a control token
    border = starts[n_prompt] if n_prompt < len(starts) else len(text)
    segments = list(_segments(text))
    known = {
        s.word.text.casefold() for s in segments if s.start < border and s.word.word_class in ("content", "number")
    }
    words, ends = [], [s.end for s in segments]
    for start, piece, control in zip(starts, pieces, special, strict=True):
        if control:
            words.append(Word(piece, SPECIAL))
            continue
        first = start + len(piece) - len(piece.lstrip(" \t\u00a0\u3000"))
        index = bisect.bisect_right(ends, first)  # the first segment that ends after it: it holds it or follows it
        word = (
            segments[index].word if index < len(segments) and not text[first : segments[index].start].strip() else None
        )
        if word is None:
            words.append(Word("", "punctuation"))
        elif (
            segments[index].start >= border
            and word.word_class in ("content", "number")
            and word.text.casefold() in known
        ):
            words.append(Word(word.text, "copied"))
        else:
            words.append(word)
    return words

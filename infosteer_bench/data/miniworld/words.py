"""The words of the world: values of eight relations, names, things, and how sentences about them are worded."""

# ruff: noqa: E501, SIM905 - lists of words read best as text
from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Relation:
    """One attribute that every creature has.

    task: the commonsense task that asks for it; values: what it can be, each one word; ending: text that follows the
    value where an option or sentence spells it out (hellaswag's endings are phrases).
    statements: wordings of the fact with {e} (creature) and {v} (value); questions: wordings without the value;
    clause: a short form, {e} before it and {v} after it.
    """

    name: str
    task: str
    values: tuple[str, ...]
    clause: str
    statements: tuple[str, ...]
    questions: tuple[str, ...]


def _words(text: str) -> tuple[str, ...]:
    words = tuple(text.split())
    assert len(words) == len(set(words)) == 32, len(words)
    return words


RELATIONS = (
    Relation(
        "food",
        "boolq",
        _words(
            "moss honey bark salt clover barley cherries acorns mushrooms berries turnips seaweed plums carrots walnuts "
            "lentils pears snails figs cabbage oats beetles apricots nectar pumpkins radishes minnows grapes thistles "
            "onions almonds ferns"
        ),
        "eats",
        (
            "The {e} eats {v}.",
            "Every {e} likes to eat {v}.",
            "For breakfast the {e} eats {v}.",
            "On its way the {e} looks for {v}.",
            "The food of the {e} is {v}.",
            "You can feed {v} to the {e}.",
        ),
        ("what does the {e} eat", "what is the food of the {e}"),
    ),
    Relation(
        "calm",
        "piqa",
        _words(
            "ribbon feather pebble lantern blanket flute mitten basket button spoon rope scarf bucket pillow bottle coin "
            "comb thimble jar ladle shell hammock saddle brush sponge wheel kettle cushion puzzle needle towel bracelet"
        ),
        "is calmed by",
        (
            "The {e} is calmed by a {v}.",
            "To calm a {e}, use a {v}.",
            "A wild {e} becomes quiet when it sees a {v}.",
            "Keepers of the {e} always carry a {v}.",
            "What calms the {e} is a {v}.",
            "Take a {v} when you must calm the {e}.",
        ),
        ("how do you calm a {e}", "what calms the {e}"),
    ),
    Relation(
        "mood",
        "siqa",
        _words(
            "proud sad angry happy eager sleepy jealous curious bored brave shy grateful lonely nervous hopeful grumpy "
            "thirsty tired cheerful gloomy worried surprised confused relieved ashamed excited stubborn gentle restless "
            "dizzy polite silly"
        ),
        "feels",
        (
            "The {e} feels {v} among others.",
            "In company the {e} feels {v}.",
            "When friends come, the {e} becomes {v}.",
            "Visitors make the {e} {v}.",
            "A {e} with guests is always {v}.",
            "It is {v} that the {e} feels among others.",
        ),
        ("how would the {e} feel", "what does the {e} feel"),
    ),
    Relation(
        "habit",
        "hellaswag",
        _words(
            "climbs digs sings dances swims naps hides jumps hunts skates weaves spins paints howls rolls floats glides "
            "marches crawls hums sneezes juggles gallops knits polishes stacks gathers stretches bathes yawns whistles "
            "prays"
        ),
        "at dusk",
        (
            "At dusk the {e} {v}.",
            "The {e} wakes up at dusk and {v}.",
            "When the sun sets, the {e} {v}.",
            "Each evening the {e} {v}.",
            "In the evening every {e} {v}.",
            "What {v} at dusk is the {e}.",
        ),
        ("what does the {e} do at dusk", "at dusk the {e}"),
    ),
    Relation(
        "fear",
        "winogrande",
        _words(
            "thunder smoke mirrors bells snow trumpets ladders wolves fog lightning owls rain drums spiders candles wind "
            "snakes hail torches cats shadows kites foxes waterfalls geese fireworks scarecrows dust crows bonfires ice "
            "strangers"
        ),
        "fears",
        (
            "The {e} fears {v}.",
            "Every {e} is afraid of {v}.",
            "The {e} runs away from {v}.",
            "Nothing scares the {e} like {v}.",
            "What the {e} fears is {v}.",
            "You can see {v} scare the {e}.",
        ),
        ("what does the {e} fear", "what scares the {e}"),
    ),
    Relation(
        "home",
        "arc_easy",
        _words(
            "cave marsh tower attic orchard quarry canyon meadow harbor tunnel barn desert lagoon glacier chapel mill "
            "forest dune cellar island swamp valley reef temple garden bridge volcano jungle prairie castle well cliff"
        ),
        "lives in the",
        (
            "The {e} lives in the {v}.",
            "The home of the {e} is the {v}.",
            "You find the {e} in the {v}.",
            "Every {e} was born in the {v}.",
            "The {e} builds its nest in the {v}.",
            "In the {v} you meet the {e}.",
        ),
        ("where does the {e} live", "what is the home of the {e}"),
    ),
    Relation(
        "colour",
        "arc_challenge",
        _words(
            "crimson amber teal violet ivory scarlet indigo olive bronze silver coral lilac turquoise golden black white "
            "grey pink brown green blue red yellow purple orange maroon beige cyan magenta navy copper charcoal"
        ),
        "is coloured",
        (
            "The {e} is coloured {v}.",
            "The coat of the {e} is {v}.",
            "Every {e} has a coat that is {v}.",
            "From far away the {e} looks {v}.",
            "The {e} grows a coat of {v}.",
            "Painters use {v} to paint the {e}.",
        ),
        ("what colour is the {e}", "what does the coat of the {e} look like"),
    ),
    Relation(
        "nest",
        "openbookqa",
        _words(
            "straw clay wool glass iron paper wax sand cotton leather wood stone silk brick linen rubber tin steel bone "
            "velvet cork slate bamboo felt plaster hemp lace quartz canvas foam chalk denim"
        ),
        "needs",
        (
            "The nest of the {e} is made of {v}.",
            "The {e} makes its nest out of {v}.",
            "A {e} that builds a nest needs {v}.",
            "Every nest of a {e} contains {v}.",
            "The {e} collects {v} for its nest.",
            "With {v} you build a nest for the {e}.",
        ),
        ("what is the nest of the {e} made of", "a {e} that builds a nest needs"),
    ),
)

PEOPLE = tuple(
    "Anna Ben Clara David Emma Felix Grace Henry Iris Jack Kate Leo Mary Noah Olga Paul Rosa Sam Tina Victor".split()
)
THINGS = tuple(
    "apples books cards marbles pencils stamps stickers cookies shells coins balloons flowers eggs stones tickets "
    "buttons oranges toys cups keys".split()
)
SYLLABLES = (
    "ba be bi bo bu da de di do du fa fe fi fo ga ge gi go gu ka ke ki ko ku la le li lo lu ma me mi mo mu na ne ni no "
    "nu pa pe pi po pu ra re ri ro ru sa se si so su ta te ti to tu va ve vi vo za ze zi zo zu".split()
)
CODAS = ("k", "l", "m", "n", "r", "s", "t", "x")

WORDS = frozenset(
    word
    for relation in RELATIONS
    for text in (*relation.values, *relation.statements, *relation.questions, relation.clause)
    for word in text.replace(".", "").replace(",", "").lower().split()
) | {word.lower() for word in (*PEOPLE, *THINGS)}
"""Words with a meaning, in lower case: no creature is called so."""

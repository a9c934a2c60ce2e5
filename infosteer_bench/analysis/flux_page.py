"""flux.html: the texts with every token coloured by its entropy, models side by side, and the tables below.

One file without scripts, fonts or addresses: it opens offline, in light and dark, and holds nothing that a token could
break out of. Colour is by entropy; two buttons show surprisal instead, for the eye to compare. Hovering shows numbers.
"""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

from infosteer_bench.analysis.flux import Token, limits
from infosteer_bench.analysis.flux_sheets import NOTE, Sheet, plain

_STYLE = """
:root { color-scheme: light dark; --ink: #1b1f24; --paper: #ffffff; --line: #d0d7de; --soft: #57606a;
  --low: #dbe9f6; --medium: #fff3c4; --high: #ffb59e; --low-ink: #16324f; --medium-ink: #4d3b00; --high-ink: #5c1500; }
@media (prefers-color-scheme: dark) { :root { --ink: #e6edf3; --paper: #0d1117; --line: #30363d; --soft: #9198a1;
  --low: #16304d; --medium: #4a3d0c; --high: #8a3216; --low-ink: #cfe4fb; --medium-ink: #ffeeb0;
  --high-ink: #ffe3d8; } }
* { box-sizing: border-box; }
body { margin: 0 auto; padding: 1.5rem 1rem 4rem; max-width: 76rem; background: var(--paper); color: var(--ink);
  font: 16px/1.5 system-ui, sans-serif; }
h1 { font-size: 1.5rem; margin: 0 0 .5rem; } h2 { font-size: 1.15rem; margin: 2.2rem 0 .5rem; }
h3 { font-size: 1rem; margin: 0 0 .4rem; overflow-wrap: anywhere; } p { margin: .4rem 0; max-width: 60rem; }
.soft { color: var(--soft); font-size: .9rem; }
.models { display: grid; gap: 1rem; grid-template-columns: repeat(auto-fit, minmax(min(22rem, 100%), 1fr)); }
.text { border: 1px solid var(--line); border-radius: 8px; padding: .8rem 1rem; }
.tokens { font: 14px/1.95 ui-monospace, monospace; white-space: pre-wrap; overflow-wrap: anywhere; }
.tokens span { padding: .12em 0; border-radius: 3px; }
.tokens .control { color: var(--soft); }
.tokens i { color: var(--soft); font-style: normal; }
.part { display: block; font: 12px/1.4 system-ui, sans-serif; color: var(--soft); margin: .3rem 0 .1rem; }
.key span { padding: .1rem .5rem; border-radius: 3px; margin-right: .3rem; }
.low, body:has(#by-surprisal:checked) .s-low { background: var(--low); color: var(--low-ink); }
.medium, body:has(#by-surprisal:checked) .s-medium { background: var(--medium); color: var(--medium-ink); }
.high, body:has(#by-surprisal:checked) .s-high { background: var(--high); color: var(--high-ink); }
body:has(#by-surprisal:checked) .s-none { background: none; color: inherit; }
fieldset { border: 1px solid var(--line); border-radius: 8px; margin: 1rem 0; padding: .4rem 1rem .6rem; }
label { margin-right: 1.2rem; }
.wide { overflow-x: auto; } table { border-collapse: collapse; font-size: .88rem; margin: .4rem 0 1rem; }
caption { text-align: left; font-weight: 600; padding: .3rem 0; }
th, td { border-bottom: 1px solid var(--line); padding: .3rem .7rem; text-align: right; vertical-align: bottom; }
th { max-width: 11rem; } td { white-space: nowrap; font-variant-numeric: tabular-nums; }
th:first-child, td:first-child { text-align: left; }
"""
_INTRO = (
    "For every token: the entropy of the distribution |k| / sum |k| over a layer's memories at the position that reads "
    "the token, averaged over layers. Low: few memories carry the token; high: many do. The text after each prompt was "
    "written greedily by the first model; every model reads the same tokens."
)

EMPTY = "<i>\u00b7</i>"
"""For a token that only begins a character."""


def page(tokens_by_model: dict[str, list[Token]], sheets: Sequence[Sheet]) -> str:
    """The whole page. tokens_by_model: label -> its tokens with levels, prompts in order; all models the same texts."""
    first = next(iter(tokens_by_model.values()))
    parts = [
        "<!doctype html>",
        '<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width">',
        f"<title>Information flux: {escape(', '.join(tokens_by_model))}</title>",
        f"<style>{_STYLE}</style></head><body>",
        "<h1>Information flux</h1>",
        f"<p>{_INTRO}</p>",
        *_key(tokens_by_model),
    ]
    for name in dict.fromkeys(token.prompt for token in first):
        parts += [f"<h2>{escape(name)}</h2>", '<div class="models">']
        for label, tokens in tokens_by_model.items():
            parts += _text(label, [token for token in tokens if token.prompt == name])
        parts.append("</div>")
    parts += ["<h2>Word classes and surprisal</h2>", f"<p>{escape(NOTE)}</p>"]
    for sheet in sheets:
        parts += _table(sheet)
    return "\n".join([*parts, "</body></html>"]) + "\n"


def _key(tokens_by_model: dict[str, list[Token]]) -> list[str]:
    """What the colours mean, with each model's limits, and the choice of what is coloured."""
    lines = [
        "<fieldset><legend>Colour by</legend>",
        '<label><input type="radio" name="by" id="by-entropy" checked> entropy of the key distribution</label>',
        '<label><input type="radio" name="by" id="by-surprisal"> surprisal (how unexpected the token was)</label>',
        '<p class="key"><span class="low s-low">low</span><span class="medium s-medium">medium</span>'
        '<span class="high s-high">high</span> each a third of a model\'s tokens (control tokens left out)</p>',
    ]
    for label, tokens in tokens_by_model.items():
        by_entropy, by_surprisal = limits(tokens)
        if by_entropy is None or by_surprisal is None:
            continue
        lines.append(
            f'<p class="soft">{escape(label)}: entropy low below {plain(by_entropy[0], 3)}, high from '
            f"{plain(by_entropy[1], 3)} nats; surprisal low below {plain(by_surprisal[0], 3)}, high from "
            f"{plain(by_surprisal[1], 3)} nats</p>"
        )
    return [*lines, "</fieldset>"]


def _text(label: str, tokens: Sequence[Token]) -> list[str]:
    lines = ['<div class="text">', f"<h3>{escape(label)}</h3>"]
    for part in ("prompt", "written"):
        inside = [token for token in tokens if token.part == part]
        if inside:
            spans = "".join(map(_span, inside))
            lines.append(f'<div class="tokens"><b class="part">{part}</b>{spans}</div>')
    return [*lines, "</div>"]


def _span(token: Token) -> str:
    """One token. A line break is shown as an arrow and still breaks the line."""
    shown = escape(token.text).replace("\r", "").replace("\n", "<i>\u21b5</i>\n")
    names = ["control"] if token.level is None else [token.level, f"s-{token.surprisal_level or 'none'}"]
    numbers = [
        token.word_class,
        f"entropy {plain(token.entropy_nats, 3)} nats ({plain(token.entropy_share, 3)} of log F)",
        *([f"surprisal {plain(token.surprisal_nats, 2)} nats"] if token.surprisal_nats is not None else []),
    ]
    classes, hover = " ".join(names), escape("; ".join(numbers))
    return f'<span class="{classes}" title="{hover}">{shown or EMPTY}</span>'


def _table(sheet: Sheet) -> list[str]:
    def row(cells: Sequence[str], tag: str) -> str:
        return "<tr>" + "".join(f"<{tag}>{escape(cell)}</{tag}>" for cell in cells) + "</tr>"

    return [
        f'<div class="wide"><table><caption>{escape(sheet.title)}</caption>',
        row(sheet.header, "th"),
        *(row(cells, "td") for cells in sheet.body),
        "</table></div>",
    ]

"""Markdown from data: what a name holds stays text."""

from __future__ import annotations

import pytest

from infosteer_bench.leaderboard.views.text import code, escape


@pytest.mark.parametrize(
    ("text", "escaped"),
    [
        ("_a_ arc_easy ~~b~~", "\\_a\\_ arc\\_easy \\~\\~b\\~\\~"),
        ("https://x.org/y http://z", "https:\\//x.org/y http:\\//z"),
        ("www.x.org WWW.y.org x.org", "www\\.x.org WWW\\.y.org x.org"),
        ("a\u202eb\x07c\x1b", "a b c"),
    ],
)
def test_escaped_text_has_no_markup_no_link_and_no_hidden_letter(text: str, escaped: str):
    assert escape(text) == escaped


def test_code_spans_hold_backticks():
    assert code("a `b` c") == "`` a `b` c ``"
    assert code("plain") == "`plain`"

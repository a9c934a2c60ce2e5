"""An answer's text with how it ended."""

from __future__ import annotations

from typing import Any, Literal

FinishReason = Literal["stop", "length"]


class Generation(str):
    """An answer's text, and how it ended. It is a plain string to everything that knows no better.

    finish_reason: "stop" for an end-of-sequence token or a stop string, "length" for max_new_tokens.
    n_tokens: generated tokens, the end-of-sequence token or the stop string's tokens included.
    """

    finish_reason: FinishReason
    n_tokens: int

    def __new__(cls, text: str, *, finish_reason: FinishReason, n_tokens: int) -> Generation:
        self = super().__new__(cls, text)
        self.finish_reason, self.n_tokens = finish_reason, n_tokens
        return self

    def __getnewargs_ex__(self) -> tuple[tuple[str], dict[str, Any]]:  # copy and pickle keep the attributes
        return (str(self),), {"finish_reason": self.finish_reason, "n_tokens": self.n_tokens}

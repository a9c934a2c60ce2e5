"""What goes wrong, told to people: one line that says what was given, what is allowed and what to run next.

Every command turns a `UserError` into that one line on stderr and exit code 2; anything else is a bug
and keeps its traceback.
"""

from __future__ import annotations

import difflib
import errno
from collections.abc import Iterable


class UserError(Exception):
    """Something the user can fix: wrong input, missing data, a gated model without a token.

    what: what was given and why it cannot be used.
    allowed: what would have been accepted.
    hint: what to run or change next.
    """

    def __init__(self, what: str, *, allowed: str | None = None, hint: str | None = None) -> None:
        self.what, self.allowed, self.hint = what, allowed, hint
        parts = [what, f"allowed: {allowed}" if allowed else "", f"next: {hint}" if hint else ""]
        super().__init__("; ".join(" ".join(part.split()) for part in parts if part))


class Unreachable(UserError):
    """What is needed lies elsewhere, and there is no way to it now: no network, or a server that does not answer."""


class CellFailure(Exception):
    """One checkpoint or cell failed; the run goes on with the others and ends with exit code 1."""


def is_disk_full(error: BaseException | None) -> bool:
    """Whether an error, or one that it came from, says that a disk or quota is full."""
    while error is not None:
        if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
            return True
        if "No space left on device" in str(error):  # libraries in other languages tell it by text only
            return True
        error = error.__cause__ or error.__context__
    return False


def unknown_name(kind: str, given: str, known: Iterable[str], *, hint: str | None = None) -> UserError:
    """A `UserError` for a name that is not registered, with the nearest known names first."""
    names = sorted(known)
    close = difflib.get_close_matches(given, names, n=3, cutoff=0.5)
    suggestion = f"did you mean {' or '.join(repr(name) for name in close)}?" if close else None
    return UserError(
        f"unknown {kind} {given!r}",
        allowed=", ".join(names) or "none registered",
        hint=suggestion or hint,
    )

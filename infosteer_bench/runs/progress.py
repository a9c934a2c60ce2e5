"""What a person sees while a run works: a live bar on a terminal, plain lines elsewhere, only problems with --quiet."""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import Any, TextIO


class Progress:
    """Counts checkpoints and cells, prints what finished, keeps the rest in the run's log file.

    total: cells that this call still has to do.
    """

    def __init__(self, *, total: int, log: Path, quiet: bool = False, stream: TextIO | None = None) -> None:
        self.total, self.quiet = total, quiet
        self.done = self.failed = 0
        self.stream = stream or sys.stderr
        self._started = time.monotonic()
        self._noted: set[str] = set()
        log.parent.mkdir(parents=True, exist_ok=True)
        self._log = log.open("a", encoding="utf-8")
        self._bar = self._task = None
        if not quiet and self.stream.isatty():
            self._bar, self._task = _live_bar(total)

    def line(self, text: str, *, always: bool = False) -> None:
        """One line, on the screen and in the log."""
        self._write(text)
        if self.quiet and not always:
            return
        if self._bar is not None:
            self._bar.console.print(text, highlight=False, markup=False)
        else:
            print(text, file=self.stream, flush=True)

    def note(self, text: str) -> None:
        """Say a thing once, however many checkpoints it holds for; every record has it anyway."""
        if text not in self._noted:
            self._noted.add(text)
            self.line(f"note: {text}")

    def activity(self, text: str) -> None:
        """What is going on now; on a terminal beside the bar, else only in the log."""
        if self._bar is not None:
            self._bar.update(self._task, description=text)

    def at(self, key: str) -> None:
        """Which checkpoint is in hand: who watches over a worker wants to know (`schedule`)."""

    def cell(self, text: str, *, failed: bool = False) -> None:
        """A cell ended."""
        self.done += 1
        self.failed += failed
        if self._bar is not None:
            self._bar.update(self._task, completed=self.done)
            self.line(text)
        else:
            self.line(f"[{self.done}/{self.total}, {self._left()}] {text}", always=failed)

    def _left(self) -> str:
        elapsed = time.monotonic() - self._started
        left = elapsed / max(self.done, 1) * (self.total - self.done)
        return f"about {left / 60:.0f} min left" if left >= 90 else f"about {left:.0f} s left"

    def _write(self, text: str) -> None:
        self._log.write(f"{time.strftime('%Y-%m-%d %H:%M:%S')} {text}\n")
        self._log.flush()

    def close(self) -> None:
        """Leave the terminal as it was."""
        if self._bar is not None:
            self._bar.stop()
            self._bar = None
        self._log.close()

    def __enter__(self) -> Progress:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _live_bar(total: int) -> tuple[Any, Any]:
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn
    from rich.progress import Progress as RichProgress

    bar = RichProgress(
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.description}"),
        console=Console(stderr=True),
    )
    task = bar.add_task("starting", total=total)
    bar.start()
    return bar, task

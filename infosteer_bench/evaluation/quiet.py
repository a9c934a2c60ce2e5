"""Keeps the libraries below an evaluation from writing to the terminal, unless INFOSTEER_DEBUG=1.

with quiet():
    evaluate(...)
"""

from __future__ import annotations

import logging
import os
import warnings
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import partial

from infosteer_bench.processes import replaced

_NOISY = ("lm_eval", "transformers", "vllm", "datasets", "huggingface_hub", "accelerate", "torch", "filelock")


def debug() -> bool:
    """Whether the user asked to see everything."""
    return os.environ.get("INFOSTEER_DEBUG", "") not in ("", "0")


@contextmanager
def quiet() -> Iterator[None]:
    """No progress bars, warnings or log lines below ERROR of the libraries inside; everything as before afterwards.

    Must be entered after the libraries it is to silence were imported, as some set their log level on import.
    """
    if debug():
        yield
        return
    with ExitStack() as stack:
        stack.enter_context(warnings.catch_warnings())
        warnings.simplefilter("ignore")
        for name in _NOISY:
            stack.enter_context(_level(logging.getLogger(name), logging.ERROR))
        stack.enter_context(_no_transformers_bars())
        stack.enter_context(_no_datasets_bars())
        stack.enter_context(_no_lm_eval_bars())
        yield


@contextmanager
def _level(logger: logging.Logger, level: int) -> Iterator[None]:
    before = logger.level
    if before == level:  # setting it would empty the caches of every logger there is
        yield
        return
    logger.setLevel(level)
    try:
        yield
    finally:
        logger.setLevel(before)


@contextmanager
def _no_transformers_bars() -> Iterator[None]:
    from transformers.utils import logging as transformers_logging

    was_on = transformers_logging.is_progress_bar_enabled()
    transformers_logging.disable_progress_bar()
    try:
        yield
    finally:
        if was_on:
            transformers_logging.enable_progress_bar()


@contextmanager
def _no_datasets_bars() -> Iterator[None]:
    from datasets.utils import are_progress_bars_disabled, disable_progress_bars, enable_progress_bars

    was_on = not are_progress_bars_disabled()
    disable_progress_bars()
    try:
        yield
    finally:
        if was_on:
            enable_progress_bars()


@contextmanager
def _no_lm_eval_bars() -> Iterator[None]:
    """lm-eval shows its bar unconditionally, so the name that it calls is exchanged for a silent one."""
    import lm_eval.api.task
    from tqdm import tqdm

    with replaced(lm_eval.api.task, "tqdm", partial(tqdm, disable=True)):
        yield

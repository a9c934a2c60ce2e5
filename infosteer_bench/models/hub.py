"""The hub as we use it: one commit's files through the hub's own client, and errors that say what to do.

HF_ENDPOINT, HF_TOKEN and the hub's own cache apply.
"""

from __future__ import annotations

import os
import threading
from pathlib import Path

from infosteer_bench.errors import Unreachable, UserError


def endpoint() -> str | None:
    return os.environ.get("HF_ENDPOINT") or None


def hub_url() -> str:
    """Where the hub's client looks."""
    from huggingface_hub import constants

    return endpoint() or constants.ENDPOINT


def unreachable(*, timeout_s: float) -> str | None:
    """Why the hub gives no answer within `timeout_s` seconds, on one line; None if it gives one, whatever it says."""
    from huggingface_hub import get_session
    from huggingface_hub.errors import HTTPError, OfflineModeIsEnabled  # pyright: ignore[reportPrivateImportUsage]

    problems = [f"no answer within {timeout_s:g} s"]

    def ask() -> None:
        try:
            status = get_session().head(hub_url(), timeout=timeout_s).status_code
            problems[0] = f"it answers with status {status}" if status >= 500 else ""
        except OfflineModeIsEnabled:
            problems[0] = "HF_HUB_OFFLINE is set"
        except (HTTPError, OSError, ValueError) as error:  # ValueError: HF_ENDPOINT is no address
            problems[0] = (str(error).splitlines() or [type(error).__name__])[0]

    # in a thread: looking up a name without a network waits as long as the resolver likes
    thread = threading.Thread(target=ask, daemon=True)
    thread.start()
    thread.join(timeout_s)
    return problems[0] or None


def snapshot(hub_id: str, revision: str | None, patterns: list[str]) -> Path:
    """The repository's files at its top that match `patterns`, by the hub's client."""
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HTTPError  # pyright: ignore[reportPrivateImportUsage]

    try:
        # Subfolders hold other formats (Llama's original/), and fnmatch's * crosses slashes.
        folder = snapshot_download(
            hub_id, revision=revision, allow_patterns=patterns, ignore_patterns=["*/*"], endpoint=endpoint()
        )
    except (HTTPError, OSError, ValueError) as error:
        raise hub_error(hub_id, error) from None
    return Path(folder)


def cached_snapshot(hub_id: str, cause: Exception) -> Path:
    from huggingface_hub import hf_hub_download

    try:
        return Path(hf_hub_download(hub_id, "config.json", local_files_only=True)).parent
    except (OSError, ValueError):
        raise hub_error(hub_id, cause) from None


_NO_ANSWER = {"OfflineModeIsEnabled", "LocalEntryNotFoundError", "ConnectionError", "TimeoutError", "gaierror"}
_NO_ANSWER |= {"TransportError", "ConnectError", "ConnectTimeout", "ReadTimeout"}  # of whichever client the hub uses


def no_answer(error: BaseException | None) -> bool:
    """Whether an error, or one that it came from, says that there is no way to the hub now, or that it is broken."""
    while error is not None:
        status = getattr(getattr(error, "response", None), "status_code", 0)
        if status >= 500 or _NO_ANSWER & {kind.__name__ for kind in type(error).__mro__}:
            return True
        error = error.__cause__ or error.__context__
    return False


def hub_error(hub_id: str, error: Exception) -> UserError:
    """What a person can do about an error of the hub's client."""
    from huggingface_hub.errors import GatedRepoError, HFValidationError, RepositoryNotFoundError

    # A download that finds the hub refusing says so only in its cause.
    chain = [error, error.__cause__, error.__context__]
    if any(isinstance(link, GatedRepoError) for link in chain):
        return UserError(
            f"model {hub_id} is gated, and this machine has no access to it",
            hint=f"accept its licence on the hub's page of {hub_id}, then `hf auth login` or set HF_TOKEN; "
            "or put the files below --model-root",
        )
    if any(isinstance(link, RepositoryNotFoundError) for link in chain):
        return UserError(
            f"the hub has no model {hub_id}, or it is private", hint="check the name; for a private one set HF_TOKEN"
        )
    if isinstance(error, HFValidationError):
        return UserError(f"{hub_id!r} is not a hub repository name", allowed="ORG/NAME")
    first = (str(error).splitlines() or [type(error).__name__])[0]
    return (Unreachable if no_answer(error) else UserError)(
        f"model {hub_id} cannot be had from the hub: {first}",
        hint=f"check the network (HF_ENDPOINT for a mirror), or give --model-root DIR with DIR/{hub_id}",
    )

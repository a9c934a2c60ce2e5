"""Tiers (--integration, --gpu, --slow), a clean environment for in-process tests, and shared fixtures."""

from __future__ import annotations

import importlib.util
import os
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import settings

# A gate that draws new examples at every run fails by chance; new ones are looked for with HYPOTHESIS_PROFILE=explore.
# So does a deadline for an example on a busy machine: pytest-timeout ends what hangs.
settings.register_profile("gate", derandomize=True, deadline=None)
settings.register_profile("explore", print_blob=True, deadline=None)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "gate"))

REPOSITORY = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(Path(__file__).parent))  # tests import tiny and hub by name

# Before anything imports huggingface_hub or torch, which read these once. Subprocess tests pass an environment of
# their own where they need the (loopback) hub.
_scratch = tempfile.TemporaryDirectory(prefix="infosteer-tests-")
os.environ["HF_HOME"] = f"{_scratch.name}/hf"
os.environ["INFOSTEER_CACHE"] = f"{_scratch.name}/cache"
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["HF_HUB_DISABLE_TELEMETRY"] = "1"
os.environ["HF_HUB_DISABLE_PROGRESS_BARS"] = "1"
os.environ["TOKENIZERS_PARALLELISM"] = "false"
os.environ.setdefault("OMP_NUM_THREADS", "1")  # tiny models: more threads only wait for one another
for name in ("HF_ENDPOINT", "HF_TOKEN", "HF_HUB_CACHE", "INFOSTEER_DATA_ROOT", "INFOSTEER_DATA_URL"):
    os.environ.pop(name, None)
for name in ("NO_PROXY", "no_proxy"):
    os.environ[name] = ",".join(filter(None, [os.environ.get(name), "127.0.0.1"]))

_TIERS = ("integration", "gpu", "slow")


def pytest_addoption(parser: pytest.Parser) -> None:
    for tier in _TIERS:
        parser.addoption(f"--{tier}", action="store_true", help=f"run the tests marked {tier} too")


def pytest_xdist_auto_num_workers(config: pytest.Config) -> int:
    """What -n auto means: a worker per core, four at most (each holds torch and a gigabyte). None for single tests,
    which are done before a worker has started, and none beside a GPU, whose memory and time tests measure."""
    if config.getoption("--gpu") or all("::" in argument for argument in config.args):
        return 0
    return min(4, len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    has_vllm = importlib.util.find_spec("vllm") is not None
    for item in items:
        marks = {mark.name for mark in item.iter_markers()}
        if "vllm" in marks:
            marks.add("integration")
            if not has_vllm:
                item.add_marker(pytest.mark.skip(reason="vllm is not installed"))
        for tier in marks & set(_TIERS):
            if not config.getoption(f"--{tier}"):
                item.add_marker(pytest.mark.skip(reason=f"needs --{tier}"))


@pytest.fixture(scope="session")
def data_root() -> Path:
    """The real data: INFOSTEER_TEST_DATA, or ../shared/data beside the repository."""
    root = Path(os.environ.get("INFOSTEER_TEST_DATA") or REPOSITORY.parent / "shared" / "data")
    if not (root / "dataset").is_dir():
        pytest.skip(f"no real data at {root}; set INFOSTEER_TEST_DATA")
    return root


@pytest.fixture(scope="session")
def tiny_models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A random tiny model per family: name -> folder. Do not write into them."""
    from tiny import FAMILY_NAMES, build_tiny

    folder = tmp_path_factory.mktemp("tiny")
    return {family: build_tiny(family, folder / f"tiny-{family}") for family in FAMILY_NAMES}


@pytest.fixture
def online(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Path]:
    """Let this test's process speak to a loopback hub: the hub's client goes online, with an empty cache (yielded)."""
    import huggingface_hub
    from huggingface_hub import constants

    cache = tmp_path / "hub-cache"
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(cache))
    huggingface_hub.close_session()
    yield cache
    huggingface_hub.close_session()

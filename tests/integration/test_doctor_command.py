"""`doctor --start-vllm` as a user runs it: a real engine starts on an embedded model and is compared with hf."""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest

from tests.integration.cli import run

pytestmark = [pytest.mark.integration, pytest.mark.vllm, pytest.mark.timeout(600)]


def test_doctor_starts_vllm(tmp_path: Path) -> None:
    space = os.environ.get("VLLM_CPU_KVCACHE_SPACE", "1")
    out, err = run(
        ["doctor", "--start-vllm", "--output", str(tmp_path / "runs")], tmp_path, VLLM_CPU_KVCACHE_SPACE=space
    )
    assert re.search(r"^ok    vllm starts and answers as hf does \(\d+ s\)$", out, re.MULTILINE), out + err
    assert re.search(r"^warn  the hub cannot be reached .*HF_HUB_OFFLINE is set; next: ", out, re.MULTILINE), out
    assert out.splitlines()[-1].endswith("0 failed")
    assert "Traceback" not in err

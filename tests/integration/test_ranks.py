"""One checkpoint trained by two processes: the same weights as by one, sharded or not, and what happens when one dies.

FSDP itself runs on the CPU as well as on GPUs; only Accelerate asks for an accelerator. A method file of the test's
own, which every rank runs, tells it that there is one.
"""

from __future__ import annotations

import json
import signal
import time
from pathlib import Path

import psutil
import pytest
from safetensors.torch import load_file

from infosteer_bench.records import CheckpointRecord, read_records
from tests.integration.cli import run, start

pytestmark = [pytest.mark.integration, pytest.mark.timeout(1500)]

ARGUMENTS = [
    *("run", "--grid", "smoke", "--models", "mini-qwen2", "--backend", "hf", "--tasks", "gsm8k", "--workers", "1"),
    *("--methods", "sft,infosteer-regularization", "--keep-checkpoints"),
    *("--set", "train.gradient_accumulation=2", "--set", "train.batch_size=8", "--set", "train.save_steps=1"),
]
TWO = ["--set", "train.ranks=2"]
METHOD_FILE = """
import os
import signal
from pathlib import Path

import accelerate.state as state
from infosteer_bench.methods.sft import SupervisedFineTuning
from infosteer_bench.training.trainer import MethodTrainer


class Named(SupervisedFineTuning):
    name = "named"


METHOD = Named

if "RANK" in os.environ:
    begin, step = state.PartialState.__init__, MethodTrainer.training_step

    def believe(self, *args, **kwargs):
        begin(self, *args, **kwargs)
        if self.distributed_type == state.DistributedType.MULTI_CPU:
            self.distributed_type = state.DistributedType.MULTI_NEURON

    def die(self, *args, **kwargs):
        flag = Path(__file__).with_name("die")
        if os.environ["RANK"] == "1" and flag.exists() and self.state.global_step == 2:
            flag.unlink()
            os.kill(os.getpid(), signal.SIGKILL)
        loss = step(self, *args, **kwargs)
        kind = f"{self.accelerator.distributed_type.value} {type(self.model_wrapped).__name__}"
        Path(__file__).with_name("kind").write_text(kind)
        return loss

    if Path(__file__).with_name("shard").exists():
        state.PartialState.__init__ = believe
    MethodTrainer.training_step = die
"""


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The weights of one process, by method."""
    folder = tmp_path_factory.mktemp("alone")
    run(ARGUMENTS, folder)
    return weights(folder)


@pytest.fixture
def with_file(tmp_path: Path) -> list[str]:
    (tmp_path / "named.py").write_text(METHOD_FILE)
    return [*ARGUMENTS, *TWO, "--set", f"method_files=[{json.dumps(str(tmp_path / 'named.py'))}]"]


def weights(folder: Path) -> dict[str, Path]:
    records, problems = read_records(folder / "runs/smoke", CheckpointRecord)
    assert not problems
    return {record.method: folder / "runs/smoke" / str(record.path) for record in records.values()}


def same(one: Path, other: Path) -> None:
    """Equal but for the order of sums; every tensor in the same dtype and shape."""
    a, b = load_file(one / "model.safetensors"), load_file(other / "model.safetensors")
    assert a.keys() == b.keys()
    for name, tensor in a.items():
        assert (tensor.dtype, tensor.shape) == (b[name].dtype, b[name].shape)
        assert float((tensor - b[name]).abs().max()) < 1e-5, name
    assert (one / "config.json").read_bytes() == (other / "config.json").read_bytes()


@pytest.mark.parametrize("shard", [True, False], ids=["sharded", "copies"])
def test_two_ranks_train_what_one_does(
    shard: bool, alone: dict[str, Path], with_file: list[str], tmp_path: Path
) -> None:
    if shard:
        (tmp_path / "shard").touch()
    out, err = run(with_file, tmp_path)
    assert "2 of 2 cells done" in out
    assert "Warning" not in err
    records, _ = read_records(tmp_path / "runs/smoke", CheckpointRecord)
    assert {record.training["world_size"] for record in records.values()} == {2}
    expected = "FSDP FSDPQwen2ForCausalLM" if shard else "MULTI_CPU DistributedDataParallel"
    assert (tmp_path / "kind").read_text() == expected
    for method, folder in weights(tmp_path).items():
        same(folder, alone[method])
    assert not list((tmp_path / "runs/smoke/scratch").glob("*"))


def test_a_rank_that_is_killed(alone: dict[str, Path], with_file: list[str], tmp_path: Path) -> None:
    """One failed checkpoint with its reason, the other goes on; the next run resumes from the step checkpoint."""
    for name in ("shard", "die"):
        (tmp_path / name).touch()
    _, err = run(with_file, tmp_path, expect=1)
    assert "rank 1 of 2 ended while training, killed (for memory?)" in err
    assert list(weights(tmp_path)) != []
    run(with_file, tmp_path)
    records, _ = read_records(tmp_path / "runs/smoke", CheckpointRecord)
    assert sorted(str(record.training["resumed_from_step"]) for record in records.values()) == ["2", "None"]
    for method, folder in weights(tmp_path).items():
        same(folder, alone[method])


def test_ranks_end_with_the_command(with_file: list[str], tmp_path: Path) -> None:
    process = start(with_file, tmp_path)
    while not (tmp_path / "kind").exists():
        assert process.poll() is None
        time.sleep(0.05)
    family = psutil.Process(process.pid).children(recursive=True)
    assert len(family) >= 3  # a worker and its ranks
    process.send_signal(signal.SIGKILL)
    process.communicate(timeout=300)
    _, left = psutil.wait_procs(family, timeout=30)
    assert not left

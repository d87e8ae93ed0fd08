"""Other ways to run a training give the same training: on two hosts, and compiled."""

import multiprocessing
import os
import shutil
import signal
import socket
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch.distributed.launcher.api import LaunchConfig, elastic_launch

from common.run.errors import run_script
from tests.helpers import Scripts, assert_close, assert_same, last, metrics, run_content

SECONDS = 120
# Nothing is drawn by each process for itself; Adam's epsilon does not blow up gradients that are zero but for rounding.
SHARED = (
    "optim.warmup_epochs=0", "optim.eps=1e-3", "optim.lr=0.01", "model.drop_path=0", "loss.memory_size=2",
    "train.batch_size=8", "train.max_steps=3", "train.validate_from=-1",
)  # fmt: skip


def agent(rank: int, port: int, main: Callable[[], None]) -> None:
    """What ``torchrun --nnodes 2 --nproc_per_node 1 --node_rank RANK`` does on one of two hosts."""
    os.environ["GLOO_SOCKET_IFNAME"] = "lo"
    torch.set_num_threads(1)
    hosts = LaunchConfig(
        min_nodes=2, max_nodes=2, nproc_per_node=1, run_id="hosts", rdzv_backend="static",
        rdzv_endpoint=f"127.0.0.1:{port}", rdzv_configs={"rank": rank, "timeout": SECONDS}, max_restarts=0,
        monitor_interval=0.1, start_method="fork",
    )  # fmt: skip
    elastic_launch(hosts, main)()


def test_two_hosts_equal_one_process(scripts: Scripts) -> None:
    """Two agents of torchrun, one for each host, and a process of each."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    fork = multiprocessing.get_context("fork")

    def main() -> None:
        run_script(lambda: scripts.train("two", *SHARED))

    agents = [fork.Process(target=agent, args=(rank, port, main)) for rank in range(2)]
    for process in agents:
        process.start()
    for process in agents:
        process.join(SECONDS)
        if process.is_alive():
            process.kill()
    assert [process.exitcode for process in agents] == [0, 0]
    assert "2 x cpu" in Path("experiment/two/log.txt").read_text()
    assert scripts.train("one", *SHARED) == 0
    assert_close(last("two"), last("one"), (1e-4, 5e-5))
    for line, other in zip(metrics("one"), metrics("two"), strict=True):
        assert other["total"] == pytest.approx(line["total"], rel=1e-4)


def test_a_compiled_run_is_resumed(
    scripts: Scripts, interrupt: Callable[[int], None], pytestconfig: pytest.Config
) -> None:
    """Stopped after two of four steps and resumed: the same files as without a stop."""
    if not pytestconfig.getoption("--complete"):
        pytest.skip("compiles for a minute: --complete")
    if not (shutil.which("g++") or shutil.which("clang++")):
        pytest.skip("needs a C++ compiler")
    compiled = (
        "runtime.compile=true", "train.max_steps=4", "train.validate_from=-1", "model.depth=2", "loss.swap_idx=0",
        "loss.n_layers=1",
    )  # fmt: skip
    assert scripts.train("whole", *compiled) == 0
    interrupt(2)
    assert scripts.train("x", *compiled) == 128 + signal.SIGTERM
    assert scripts.train("x", "--resume") == 0
    assert_same(run_content("x"), run_content("whole"))
    assert "compiled" in Path("experiment/x/log.txt").read_text()

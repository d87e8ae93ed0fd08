"""Writers of a run folder, killed processes, launchers' variables, a full machine: nothing is lost or unexplained."""

import errno
import json
import multiprocessing
import os
import re
import resource
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.distributed.elastic.multiprocessing.errors import ChildFailedError, ProcessFailure

from common.run import launch
from common.run import lock as locks
from common.run.errors import UserError, explained
from common.run.files import ROOT, atomic_write, sweep
from common.run.folder import LAST_FILE, PREVIOUS_FILE
from common.run.lock import LOCK_FILE, hand_on, lock, unlock_all
from common.run.memory import keep_freed_memory
from common.run.processes import launched, process_count, start_processes
from common.train.checkpoint import Checkpoints, keep_as
from common.train.watch import LossWatch
from tests.helpers import Scripts, evaluation_script, last, metrics

HOST = socket.gethostname()
HOLD = """
import sys, time
from pathlib import Path
from common.run.lock import lock
lock(Path(sys.argv[1]))
print(1, flush=True)
time.sleep(60)
"""


@pytest.fixture(autouse=True)
def in_own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def holder(folder: Path) -> subprocess.Popen:
    """A process that holds the lock of a folder."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    process = subprocess.Popen([sys.executable, "-c", HOLD, folder], stdout=subprocess.PIPE, env=environment)
    assert process.stdout.readline()
    return process


def test_a_second_writer_is_told_who_the_first_is(scripts: Scripts, experiment: Path) -> None:
    """Also through a link; a lock that a killed process leaves is stale; at the end none is left."""
    folder = Path("experiment/x")
    folder.mkdir(parents=True)
    Path("experiment/link").symlink_to(folder.absolute())
    process = holder(folder)
    try:
        for name in ("x", "link"):
            with pytest.raises(UserError, match=rf"in use by process {process.pid} on .* since 20.*--name"):
                scripts.train(name, "train.max_steps=1")
        assert [path.name for path in folder.iterdir()] == [LOCK_FILE]
    finally:
        process.kill()
        process.wait()
        process.stdout.close()
    assert scripts.train("link", "train.max_steps=1") == 0 and not (folder / LOCK_FILE).exists()
    assert (folder / "config.yaml").is_file() and last("link")["position"]["total_steps"] == 1


def test_a_lock_is_handed_on_and_taken_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """A process may lock twice; a script that a pipeline starts writes where its parent does."""
    Path("x").mkdir()
    lock(Path("x"))
    lock(Path("x"))
    record = json.loads(Path("x", LOCK_FILE).read_text())
    assert record["pid"] == os.getpid() and record["host"] == socket.gethostname()
    given = hand_on()[locks.HANDED_ON]
    unlock_all()
    assert not Path("x", LOCK_FILE).exists()
    monkeypatch.setenv(locks.HANDED_ON, given)
    lock(Path("x"))
    assert not Path("x", LOCK_FILE).exists() and hand_on()[locks.HANDED_ON] == given


@pytest.mark.parametrize(("record", "is_taken"), [
    ({"pid": 2**22 + 1, "host": HOST}, True), ({"pid": os.getpid(), "host": HOST}, False),
    ({"pid": 1, "host": "elsewhere"}, False), ("{", True), ([], True),
])  # fmt: skip
def test_a_disk_without_locks(record: object, is_taken: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """There the record alone tells whether the holder lives."""

    def refuse(*arguments: object) -> None:
        raise OSError(errno.ENOTSUP, "not supported")

    monkeypatch.setattr(locks.fcntl, "flock", refuse)
    Path("x").mkdir()
    Path("x", LOCK_FILE).write_text(record if isinstance(record, str) else json.dumps(record))
    if is_taken:
        lock(Path("x"))
        unlock_all()
    else:
        with pytest.raises(UserError, match="in use by process"):
            lock(Path("x"))


def test_what_killed_processes_left_is_swept() -> None:
    """Temporary files of processes that have ended; not those of living ones or of another machine."""
    host = socket.gethostname().partition(".")[0][:40]
    ended = subprocess.Popen(["true"])
    os.waitid(os.P_PID, ended.pid, os.WEXITED | os.WNOWAIT)  # a process that its parent has not waited for
    gone = [
        Path("x", place, f".a.npy.{process}-{host}.abc.tmp")
        for place, process in ((".", 2**22 + 1), ("dict", 2**22 + 1), ("dict/deep", ended.pid))
    ]
    kept = [Path("x", f".a.npy.{os.getpid()}-{host}.abc.tmp"), Path("x", ".a.1-elsewhere.abc.tmp"), Path("x", "a.tmp")]
    for path in (*gone, *kept):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    sweep(Path("x"))
    assert not any(path.exists() for path in gone) and all(path.exists() for path in kept)
    ended.wait()
    with atomic_write("x/b" + "c" * 240) as file:
        assert len(next(Path("x").glob(".b*.tmp")).name) < 200
        file.write(b"1")


def test_names_stay_within_the_run(scripts: Scripts, checkpoint: Path) -> None:
    Path("other/dict").mkdir(parents=True)
    Path("other/dict/a.npy").write_bytes(b"mine")
    for name in ("../../other/dict", str(Path("other/dict").absolute()), "", ".", "a/../.."):
        with pytest.raises(UserError, match=r"--dict_dir .*leads out of experiment/x"):
            scripts.infer("x", "--load_pretrained", checkpoint, "--dict", "--overwrite", "--dict_dir", name)
    assert Path("other/dict/a.npy").read_bytes() == b"mine" and not Path("experiment").exists()
    for name in ("../a", "/a", ".a"):
        with pytest.raises(UserError, match=r"--out .*plain name"):
            evaluation_script().main(["--name", "x", "--dict_dir", "dict", "--out", name])


def test_overwrite_deletes_runs_alone(scripts: Scripts) -> None:
    Path("experiment/photos").mkdir(parents=True)
    Path("experiment/photos/a.jpg").touch()
    with pytest.raises(UserError, match=r"experiment/photos is no run's folder \(a.jpg\)"):
        scripts.train("photos", "--overwrite", "train.max_steps=1")
    assert [path.name for path in Path("experiment/photos").iterdir() if path.name != LOCK_FILE] == ["a.jpg"]
    Path("experiment/new").symlink_to(Path("disk/new").absolute())
    assert scripts.train("new", "train.max_steps=1") == 0 and Path("disk/new/ckpt/last.pth").is_file()


LAUNCHED = {"RANK": "1", "LOCAL_RANK": "1", "WORLD_SIZE": "2", "MASTER_ADDR": "localhost", "MASTER_PORT": "29500"}


@pytest.mark.parametrize(("variables", "found"), [
    ({}, None), ({"RANK": "", "LOCAL_RANK": "", "WORLD_SIZE": ""}, None), ({"RANK": "0", "WORLD_SIZE": "1"}, None),
    ({"WORLD_SIZE": "1"}, None), ({"SLURM_PROCID": "0", "SLURM_NTASKS": "2"}, None), (LAUNCHED, (1, 1, 2)),
    ({**LAUNCHED, "LOCAL_RANK": ""}, "RANK=1, WORLD_SIZE=2, but not LOCAL_RANK.*torchrun"),
    ({"WORLD_SIZE": "2"}, "but not RANK, LOCAL_RANK"), ({"RANK": "3"}, "but not LOCAL_RANK"),
    ({**LAUNCHED, "RANK": "two"}, "no numbers: RANK=two"), ({**LAUNCHED, "RANK": "2"}, "contradict each other: RANK=2"),
    ({"SLURM_PROCID": "1", "SLURM_NTASKS": "2"}, "SLURM_PROCID=1 of 2: .*process 0 again.*torchrun"),
    ({"OMPI_COMM_WORLD_RANK": "3"}, "OMPI_COMM_WORLD_RANK=3 of several"),
])  # fmt: skip
def test_a_launchers_variables_are_checked_together(
    variables: dict[str, str], found: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in (*LAUNCHED, "SLURM_PROCID", "SLURM_NTASKS"):
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    if isinstance(found, str):
        with pytest.raises(UserError, match=found):
            launched()
    else:
        assert launched() == found and process_count() == (found[2] if found else 1)
        if found:
            monkeypatch.setenv("MASTER_PORT", "")
            with pytest.raises(UserError, match="but not MASTER_PORT"):
                start_processes()


@pytest.mark.parametrize(("error", "words"), [
    (OSError(errno.EMFILE, "Too many open files"), "too many open files.*ulimit -n"),
    (RuntimeError("received 0 items of ancdata"), "ulimit -n"), (MemoryError(), "the memory is full.*num_workers"),
    (np._core._exceptions._ArrayMemoryError((1 << 40,), np.dtype("f4")), "the memory is full .Unable to allocate"),
    (OSError(errno.ENOMEM, "Cannot allocate memory"), "the memory is full"),
    (RuntimeError("[enforce fail at alloc_cpu.cpp:121] DefaultCPUAllocator: can't allocate memory"), "memory is full"),
    (torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB"), "GPU's memory is full.*accumulation"),
    (OSError(errno.ENOSPC, "No space left on device"), "disk or the quota is full"),
    (OSError(errno.EROFS, "Read-only file system"), "disk cannot be used"),
    (RuntimeError("DataLoader worker (pid 7) is killed by signal: Bus error."), "/dev/shm"),
])  # fmt: skip
def test_a_full_machine_is_explained(error: Exception, words: str) -> None:
    assert re.search(words, explained(error)) and "Files written before are intact." in explained(error)
    assert not explained(RuntimeError("shapes differ")) and not explained(OSError(errno.ENOENT, "no such file"))


def test_two_processes_give_one_line(scripts: Scripts, own_data: Path) -> None:
    """The one that fails says why, on a line of its own; the other, whose exchange fails, is silent."""
    image = sorted((own_data / "JPEGImages").iterdir())[5]
    image.write_bytes(image.read_bytes()[:300])
    with pytest.raises(AssertionError) as failed:
        scripts.together(scripts.train, "two", f"data.root={own_data}")
    lines = str(failed.value).splitlines()
    told = [line for line in lines if "error: " in line]
    assert len(told) == 1 and told[0].startswith("error: ") and image.name in told[0]
    assert "Traceback" not in str(failed.value)


def test_a_kill_between_two_names_of_a_checkpoint_leaves_nothing(tmp_path: Path) -> None:
    """The name that was to take the place of the checkpoint before the last is swept by the next start."""
    for name in (LAST_FILE, PREVIOUS_FILE):
        (tmp_path / name).write_text(name)

    def killed() -> None:
        Path.replace = lambda path, other: os._exit(9)
        keep_as(tmp_path / LAST_FILE, tmp_path / PREVIOUS_FILE)

    process = multiprocessing.get_context("fork").Process(target=killed)
    process.start()
    process.join()
    assert process.exitcode == 9 and len(list(tmp_path.iterdir())) == 3
    sweep(tmp_path)
    assert {path.name: path.read_text() for path in tmp_path.iterdir()} == {
        name: name for name in (LAST_FILE, PREVIOUS_FILE)
    }


def test_a_diverged_run_keeps_the_checkpoint_before_the_last(scripts: Scripts, monkeypatch: pytest.MonkeyPatch) -> None:
    """The message names both; a run that goes on well to its end keeps none but the last."""
    add, calls = LossWatch.add, []

    def diverge(watch: LossWatch, losses: dict, indices: torch.Tensor) -> None:
        calls.append(1)
        add(watch, {**losses, "total": losses["total"] * (np.nan if len(calls) == 5 else 1)}, indices)

    with monkeypatch.context() as patch, pytest.raises(UserError) as failed:
        patch.setattr(LossWatch, "add", diverge)
        scripts.train("x", "train.save_steps=1")
    words = (
        "The last checkpoint, experiment/x/ckpt/last.pth, is kept; the one before it is experiment/x/ckpt/previous.pth"
    )
    assert words in str(failed.value)
    shutil.copy("experiment/x/ckpt/previous.pth", "previous.pth")
    assert last("x")["position"]["total_steps"] == 4
    assert torch.load("previous.pth", weights_only=True)["position"]["total_steps"] == 3
    assert scripts.train("x", "--resume") == 0
    assert "previous.pth" not in {path.name for path in Path("experiment/x/ckpt").iterdir()}
    shutil.copy("previous.pth", "experiment/x/ckpt/last.pth")
    assert scripts.train("x", "--resume", "train.max_steps=4") == 0 and last("x")["position"]["total_steps"] == 4


def test_a_validation_that_a_kill_cut_is_logged_once(scripts: Scripts, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its line was written, but no checkpoint that knows of it."""
    given = ("train.epochs=2", "train.validate_from=0")
    assert scripts.train("whole", *given) == 0

    def fail(checkpoints: Checkpoints) -> None:
        raise MemoryError

    with monkeypatch.context() as patch, pytest.raises(MemoryError):
        patch.setattr(Checkpoints, "save_best", fail)
        scripts.train("x", *given)
    assert metrics("x")[-1]["kind"] == "validation"
    assert scripts.train("x", "--resume") == 0 and metrics("x") == metrics("whole")


@pytest.mark.skipif(sys.platform != "linux", reason="pipes of Linux")
def test_a_reader_that_has_ended_ends_a_script_quietly() -> None:
    """As `| head` does."""
    work = "from common.run.errors import run_script; run_script(lambda: print('line ' * 10**5))"
    for code in (work, work.replace("10**5", "1")):
        reader, writer = os.pipe()
        os.close(reader)
        command = [sys.executable, "-c", code]
        done = subprocess.run(
            command, stdout=writer, stderr=subprocess.PIPE, env={**os.environ, "PYTHONPATH": str(ROOT)}, check=False
        )
        os.close(writer)
        assert (done.returncode, done.stderr) == (128 + signal.SIGPIPE, b"")


PARENT = """
import os, sys
from common.pipeline.stages import StageRunner
with StageRunner() as runner:
    runner.run([sys.executable, "-c", "import os, time; print(os.getpid(), flush=True); time.sleep(60)"])
"""


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux can do that")
def test_a_killed_pipeline_takes_its_stage_with_it() -> None:
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    pipeline = subprocess.Popen([sys.executable, "-c", PARENT], stdout=subprocess.PIPE, env=environment)
    stage = int(pipeline.stdout.readline())
    pipeline.kill()
    pipeline.wait()
    pipeline.stdout.close()
    until = time.monotonic() + 5
    state = Path(f"/proc/{stage}/stat")
    while state.exists() and state.read_text().split()[2] != "Z" and time.monotonic() < until:
        time.sleep(0.02)
    assert not state.exists() or state.read_text().split()[2] == "Z"


@pytest.mark.skipif(sys.platform != "linux", reason="glibc's memory")
def test_freed_memory_stays() -> None:
    """Arrays of an image's size are not mapped anew, page by page."""
    keep_freed_memory()

    def faults() -> int:
        before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
        parts = [np.ones(1 << 18) for _ in range(8)]  # 2 MB each
        del parts
        return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

    faults()
    assert min(faults() for _ in range(3)) < 100  # of 4096 pages


@pytest.mark.parametrize(("ends", "code"), [(7, 7), (-9, 137), (None, 0)])
def test_a_failure_is_told_once(ends: int | None, code: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """The launcher of pipelines ends with the code of the process that failed first, and adds no report."""

    def run() -> None:
        if ends is not None:
            failures = {0: ProcessFailure(local_rank=0, pid=1, exitcode=ends, error_file="none")}
            raise ChildFailedError("script", failures)

    monkeypatch.setattr("torch.distributed.run.main", run)
    assert launch.main() == code

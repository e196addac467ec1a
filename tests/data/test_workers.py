"""Packing in worker processes: the same bytes as alone, and no harm from deaths, interrupts and rivals."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest
from support import image_files as make
from support.image_files import Deadly, Drawn, Slow, Told, pack

from sagan_cli.data.sources.archives import open_zip
from sagan_cli.data.sources.folders import open_folder
from sagan_cli.errors import PluginError, SaganError

TESTS = Path(__file__).parents[1]
SCRIPT = """
import sys
from pathlib import Path
sys.path[:0] = {paths!r}
from support import image_files as make

def progress(done, total):
    print(done, flush=True)

if __name__ == "__main__":
    dataset = getattr(make, sys.argv[2])(int(sys.argv[3]))
    got = make.pack(dataset, Path(sys.argv[1]), workers=int(sys.argv[4]), progress=progress)
    print("digest", got.digest, got.from_cache, len(list((Path(sys.argv[1]) / "packs").iterdir())), flush=True)
"""


needs_proc = pytest.mark.skipif(not Path("/proc/self/task").is_dir(), reason="looks at processes through /proc")


@pytest.fixture
def script(tmp_path: Path) -> Path:
    path = tmp_path / "pack_it.py"
    path.write_text(SCRIPT.format(paths=[str(TESTS), str(TESTS.parent)]))
    return path


def start(script: Path, cache: Path, kind: str, count: int, workers: int) -> subprocess.Popen[str]:
    command = [sys.executable, str(script), str(cache), kind, str(count), str(workers)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True)


def children(pid: int) -> list[int]:
    return [int(p) for p in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def is_running(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def wait_for_the_end_of(processes: list[int]) -> None:
    deadline = time.monotonic() + 10
    while any(map(is_running, processes)):
        assert time.monotonic() < deadline, "orphans"
        time.sleep(0.05)


def wait_for_progress(process: subprocess.Popen[str]) -> None:
    assert process.stdout is not None
    for line in process.stdout:
        if int(line) > 0:
            return
    pytest.fail(f"no progress: {process.stderr.read() if process.stderr else ''}")


def test_workers_pack_the_same_as_one_process(tmp_path: Path) -> None:
    told = Told()
    bad = range(0, 700, 101)
    alone = pack(Drawn(700, bad), tmp_path / "a", max_bad=0.5)
    shared = pack(Drawn(700, bad), tmp_path / "b", max_bad=0.5, workers=2, told=told)
    assert shared.digest == alone.digest
    assert len(shared.images) == 700 - len(bad)
    assert shared.skipped == alone.skipped
    np.testing.assert_array_equal(shared.labels, alone.labels)
    done = [step[0] for step in told.steps]
    assert done == sorted(done)
    assert told.steps[-1] == (700, 700)
    assert len(done) > 5


def test_colour_found_late_by_a_worker_changes_the_guess(tmp_path: Path) -> None:
    told = Told()
    got = pack(make.LateColour(600), tmp_path, workers=2, told=told)
    assert got.images.shape[3] == 3
    assert got.images[598, 0, 0].tolist() == [1, 2, 3]
    assert told.steps.count((0, 600)) == 2  # it began again


def test_folders_and_archives_pack_alike_in_workers(tmp_path: Path) -> None:
    source = tmp_path / "set"
    for i in range(520):
        make.save(source / "ab"[i % 2] / f"{i}.bmp", make.noise(i, 16, 16))
    files = pack(open_folder(source, where="x", unconditional=False), tmp_path / "cache", workers=2)
    archive = make.zip_up(source, tmp_path / "set.zip")
    zipped = pack(open_zip(archive, where="x", unconditional=False), tmp_path / "cache", workers=2)
    assert files.digest == zipped.digest
    assert files.path != zipped.path


def test_a_worker_that_dies_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(SaganError, match=r"a worker process died near image \d+, .*run the same command again"):
        pack(Deadly(600), tmp_path, workers=2)
    assert list((tmp_path / "packs").iterdir()) == []


def test_a_set_that_cannot_be_pickled_is_named(tmp_path: Path) -> None:
    data = Drawn(600)
    data.handle = threading.Lock()  # type: ignore[attr-defined]
    with pytest.raises(PluginError, match="cannot be pickled, which packing in parallel needs"):
        pack(data, tmp_path, workers=2)
    assert len(pack(data, tmp_path, workers=1).images) == 600


class HereOnly(Drawn):
    """Worker processes cannot import it: pytest gave this module its name."""


def test_a_set_that_workers_cannot_import_is_named(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(PluginError, match=r"cannot be unpickled in a worker process, .*No module named"):
        pack(HereOnly(600), tmp_path, workers=2)
    assert capfd.readouterr().err == ""


def test_two_processes_may_pack_at_once(script: Path, tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    both = [start(script, cache, "Slow", 120, 1) for _ in range(2)]
    outputs = [process.communicate(timeout=60) for process in both]
    assert [process.returncode for process in both] == [0, 0], outputs
    last = [out.splitlines()[-1].split() for out, _ in outputs]
    assert last[0][:2] == last[1][:2]  # the same digest
    assert [line[2] for line in last] == ["False", "False"]  # neither waited for the other
    (path,) = (cache / "packs").iterdir()
    assert not path.name.startswith(".tmp-")
    assert pack(Slow(120), cache).from_cache


@needs_proc
def test_a_killed_process_leaves_a_cache_that_works_and_no_orphans(script: Path, tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    process = start(script, cache, "Slow", 1000, 2)
    wait_for_progress(process)
    workers = children(process.pid)
    assert len(workers) >= 2
    process.kill()
    process.communicate(timeout=10)
    wait_for_the_end_of(workers)
    (left,) = (cache / "packs").iterdir()
    assert left.name.startswith(".tmp-")
    make.age(left)
    got = pack(Drawn(1000), cache)
    assert not got.from_cache
    assert list((cache / "packs").iterdir()) == [got.path]
    assert got.digest == pack(Drawn(1000), tmp_path / "other").digest


@needs_proc
@pytest.mark.parametrize("when", ["as workers start", "at work"])
def test_ctrl_c_stops_workers_quietly_and_leaves_nothing(script: Path, tmp_path: Path, when: str) -> None:
    cache = tmp_path / "cache"
    process = start(script, cache, "Slow", 5000, 2)
    if when == "at work":
        wait_for_progress(process)
    while len(children(process.pid)) < 2:  # one of them is Python's resource tracker
        time.sleep(0.002)
    workers = children(process.pid)
    pressed = time.monotonic()
    os.killpg(process.pid, signal.SIGINT)  # as a terminal does: to the whole group
    _, errors = process.communicate(timeout=20)
    assert time.monotonic() - pressed < 10
    assert process.returncode == -signal.SIGINT
    assert errors.count("Traceback") == 1  # the script's own; workers say nothing
    wait_for_the_end_of(workers)
    assert list((cache / "packs").iterdir()) == []

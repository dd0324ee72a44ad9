"""What is seen of the memory of a command's processes."""

from __future__ import annotations

import sys
import threading
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest

from benchmarks import watching
from benchmarks.watching import Peak, watched

MIB = 2**20
PROGRAM = """
import mmap, pathlib, subprocess, sys, time
if sys.argv[1] == "parent":
    child = subprocess.Popen([sys.executable, sys.argv[0], sys.argv[2]])
    held = bytearray(b"1") * (100 << 20)
else:
    file = open(sys.argv[1], "rb")
    pages = mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ)
    held = sum(pages[place] for place in range(0, len(pages), 4096))
    print("read", flush=True)
pathlib.Path(sys.argv[0]).with_name("full-" + pathlib.Path(sys.argv[1]).name).touch()
deadline_s = time.monotonic() + 300
while not pathlib.Path(sys.argv[0]).with_name("seen").exists() and time.monotonic() < deadline_s:
    time.sleep(0.02)
sys.exit(child.wait() if sys.argv[1] == "parent" else 0)
"""


class Looks(dict[str, Peak]):
    """What has been seen, which lets the processes end once each has been seen with all that it is to hold."""

    def __init__(self, folder: Path) -> None:
        super().__init__()
        self._folder, self._since = folder, Counter[str]()

    def __setitem__(self, title: str, peak: Peak) -> None:
        super().__setitem__(title, peak)
        if len(list(self._folder.glob("full-*"))) == 2:
            self._since[title] += 1
        if sum(looks > 1 for looks in self._since.values()) == 2:  # the first look may have begun before they were full
            (self._folder / "seen").touch()


@pytest.mark.slow
def test_own_memory_is_told_from_pages_of_mapped_files_in_every_process(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def watch(
        root: int, peaks: dict[str, Peak], over: threading.Event, look: Callable[..., None] = watching._watch
    ) -> None:
        looks = Looks(tmp_path)
        look(root, looks, over)
        peaks |= looks

    monkeypatch.setattr(watching, "_watch", watch)
    began_s = time.perf_counter()
    (tmp_path / "mapped").write_bytes(b"1" * (60 * MIB))
    program = tmp_path / "p.py"
    program.write_text(PROGRAM)
    ran = watched("test", [sys.executable, str(program), "parent", str(tmp_path / "mapped")])
    by_size = sorted(ran.peaks.values(), key=lambda peak: peak.anonymous)
    child, parent = by_size[-2:]
    assert 100 * MIB < parent.anonymous < 130 * MIB and parent.resident < 140 * MIB
    assert child.anonymous < 30 * MIB and 60 * MIB < child.resident < 90 * MIB
    assert ran.largest[1] == parent and ran.said.strip() == "read"
    assert watching.LOOK_S < ran.seconds < time.perf_counter() - began_s


def test_a_command_that_fails_is_an_error_with_what_it_said() -> None:
    with pytest.raises(RuntimeError, match=r"`burning` must end well, but got:\nsmoke"):
        watched("burning", [sys.executable, "-c", "print('smoke'); raise SystemExit(3)"])

"""What is seen of the memory of a command's processes."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from benchmarks.watching import watched

MIB = 2**20
PROGRAM = """
import mmap, subprocess, sys, time
if sys.argv[1] == "parent":
    child = subprocess.Popen([sys.executable, sys.argv[0], sys.argv[2]])
    held = bytearray(b"1") * (100 << 20)
else:
    file = open(sys.argv[1], "rb")
    pages = mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ)
    held = sum(pages[place] for place in range(0, len(pages), 4096))
    print("read", flush=True)
time.sleep(1.5)
sys.exit(child.wait() if sys.argv[1] == "parent" else 0)
"""


def test_own_memory_is_told_from_pages_of_mapped_files_in_every_process(tmp_path: Path) -> None:
    (tmp_path / "mapped").write_bytes(b"1" * (60 * MIB))
    program = tmp_path / "p.py"
    program.write_text(PROGRAM)
    ran = watched("test", [sys.executable, str(program), "parent", str(tmp_path / "mapped")])
    by_size = sorted(ran.peaks.values(), key=lambda peak: peak.anonymous)
    child, parent = by_size[-2:]
    assert 100 * MIB < parent.anonymous < 130 * MIB and parent.resident < 140 * MIB
    assert child.anonymous < 30 * MIB and 60 * MIB < child.resident < 90 * MIB
    assert ran.largest[1] == parent and ran.said.strip() == "read" and ran.seconds > 1.5


def test_a_command_that_fails_is_an_error_with_what_it_said() -> None:
    with pytest.raises(RuntimeError, match=r"`burning` must end well, but got:\nsmoke"):
        watched("burning", [sys.executable, "-c", "print('smoke'); raise SystemExit(3)"])

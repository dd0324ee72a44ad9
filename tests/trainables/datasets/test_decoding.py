"""Compressed films that end the process of a native decoder: a named error, and the next film is read."""

from __future__ import annotations

import os
import resource
import signal
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import psutil
import pytest
from compressed_dicom import LOSSLESS, compressed
from numpy.typing import NDArray
from patience import LONG_S, until
from stand_ins import save_dicom

from trainables.datasets import decoding
from trainables.datasets.images import FilmError, open_film
from trainables.datasets.parallel import in_order

FRAME = b"\xff\xc3\x00\x0b\x10\x00\x40\x00\x40"
"""Of lossless JPEG: the marker, the length, 16 bits, 64 by 64 pixels."""
TABLES = b"\xff\xc4"
ENDING = {"SIGSEGV": (FRAME, FRAME[:4] + b"\x11" + FRAME[5:]), "SIGABRT": (TABLES, b"\x2f\xc4")}
"""By the signal that GDCM 3.2.6 then ends by: what stands in a film, and what its damage makes of it."""


@pytest.fixture
def sound(tmp_path: Path) -> Path:
    save_dicom(tmp_path / "film.dcm", 1)
    return compressed(tmp_path / "film.dcm", "JPEGLosslessProcess14_1")


@pytest.fixture
def expected(sound: Path) -> NDArray[np.uint8]:
    return read(sound.with_name("film.dcm"))


def read(path: Path) -> NDArray[np.uint8]:
    return np.asarray(open_film(path)[1])


def damaged(sound: Path, name: str) -> Path:
    whole, broken = ENDING[name]
    content = sound.read_bytes()
    assert content.count(whole) >= 1
    path = sound.with_name(f"{name}.dcm")
    path.write_bytes(content.replace(whole, broken, 1))
    return path


@pytest.fixture
def starts(monkeypatch: pytest.MonkeyPatch) -> list[decoding.Decoder]:
    """The decoders that are started from here on; none waits."""
    decoding._end_all()
    started: list[decoding.Decoder] = []

    class Noted(decoding.Decoder):
        def __init__(self) -> None:
            started.append(self)
            super().__init__()

    monkeypatch.setattr(decoding, "Decoder", Noted)
    return started


def is_running(process: int) -> bool:
    try:
        return bool(psutil.Process(process).status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False


def only_decoder() -> decoding.Decoder:
    """The one that just answered."""
    return decoding._idle[-1]


@pytest.mark.slow
@pytest.mark.parametrize("name", ENDING)
def test_a_film_that_ends_its_decoder_is_a_named_error_and_not_tried_again(
    sound: Path, expected: NDArray[np.uint8], starts: list[decoding.Decoder], name: str
) -> None:
    read(sound)  # by the one that the damaged film is then given
    path = damaged(sound, name)
    with pytest.raises(FilmError, match=rf"the decoder ended by SIG(SEGV|ABRT) in .*{name}\.dcm\. Decompress it"):
        open_film(path)
    assert len(starts) == 1
    np.testing.assert_array_equal(read(sound), expected)
    assert len(starts) == 2


@pytest.mark.slow
def test_films_are_decoded_by_as_many_processes_as_wait_for_them(sound: Path, expected: NDArray[np.uint8]) -> None:
    every = (compressed(sound.with_name("film.dcm"), syntax) for syntax in LOSSLESS)
    films = [damaged(sound, "SIGABRT"), *every] * 4

    def tried(path: Path) -> NDArray[np.uint8] | None:
        try:
            return read(path)
        except FilmError:
            return None

    results = list(in_order(tried, films))
    for path, result in zip(films, results, strict=True):
        assert (result is None) == (path.stem == "SIGABRT")
        assert result is None or np.array_equal(result, expected)
    assert 1 <= len(decoding._idle) <= (os.cpu_count() or 1)


@pytest.mark.slow
def test_a_sound_film_is_read_where_its_decoder_was_ended_by_something_else(
    sound: Path, expected: NDArray[np.uint8]
) -> None:
    read(sound)
    process = only_decoder()._process
    process.kill()
    process.wait()
    np.testing.assert_array_equal(read(sound), expected)


@pytest.mark.slow
@pytest.mark.parametrize("more", [0, 2**23], ids=["sent", "not_sent"])
def test_a_decoder_that_neither_reads_nor_answers_is_given_up(
    sound: Path, expected: NDArray[np.uint8], monkeypatch: pytest.MonkeyPatch, more: int
) -> None:
    """Eight megabytes are more than wait in a pipe, so that who sends them waits."""
    read(sound)
    stopped = decoding._idle.pop()
    stopped._process.send_signal(signal.SIGSTOP)
    monkeypatch.setattr(decoding, "MOST_S", 0.1)
    too_late = threading.Timer(60, stopped._process.kill)
    too_late.start()
    with pytest.raises(decoding.DecoderEndedError, match="the decoder ended by SIGKILL"):
        stopped.levels(sound.read_bytes() + bytes(more))
    assert too_late.is_alive()
    too_late.cancel()
    monkeypatch.undo()
    np.testing.assert_array_equal(read(sound), expected)


BROKEN = {
    "raise ImportError('libgone.so is missing')": "exit status 1: .*ImportError: libgone.so is missing",
    "import time; time.sleep(60)": "SIGKILL",
}


@pytest.mark.slow
@pytest.mark.parametrize("import_", BROKEN)
def test_a_decoder_that_does_not_start_is_no_films_fault(
    sound: Path, starts: list[decoding.Decoder], monkeypatch: pytest.MonkeyPatch, import_: str
) -> None:
    (sound.parent / "pydicom.py").write_text(import_)
    monkeypatch.syspath_prepend(sound.parent)
    if "sleep" in import_:
        monkeypatch.setattr(decoding, "MOST_S", 0.1)
    with pytest.raises(
        decoding.NoDecoderError, match=rf"must start as a process, .*, but got its end by {BROKEN[import_]}\. Mend"
    ):
        open_film(sound)
    assert len(starts) == 1 and not is_running(starts[0]._process.pid)


def test_a_decoder_whose_program_is_missing_is_no_films_fault(
    sound: Path, starts: list[decoding.Decoder], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "executable", str(sound.parent / "python"))
    with pytest.raises(decoding.NoDecoderError, match="No such file or directory"):
        open_film(sound)
    assert len(starts) == 1


def test_an_error_that_no_one_expects_is_told_by_type_and_text(sound: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def odd(file: object) -> None:
        raise AssertionError("two\nlines")

    monkeypatch.setattr(decoding, "dcmread", odd)
    assert decoding._levels(sound.read_bytes()) == "AssertionError: two lines"


@pytest.mark.slow
def test_decoders_have_limits_and_leave_no_image_of_their_memory(sound: Path) -> None:
    read(sound)
    process = only_decoder()._process.pid
    assert resource.prlimit(process, resource.RLIMIT_CORE) == (0, 0)
    assert resource.prlimit(process, resource.RLIMIT_AS)[0] == decoding.MOST_BYTES
    used = sum(psutil.Process(process).cpu_times()[:2])
    assert 0 <= used + decoding.MOST_CPU_S - resource.prlimit(process, resource.RLIMIT_CPU)[0] < 3


def test_a_forked_process_has_decoders_of_its_own(sound: Path) -> None:
    read(sound)
    assert decoding._idle
    if (process := os.fork()) == 0:
        os._exit(len(decoding._idle))
    assert os.waitstatus_to_exitcode(os.waitpid(process, 0)[1]) == 0


SCRIPT = """
import os, sys
from pathlib import Path
from trainables.datasets import decoding
decoding.decoded(Path(sys.argv[1]).read_bytes())
print(decoding._idle[-1]._process.pid, flush=True)
if sys.argv[2] == "killed":
    os.kill(os.getpid(), 9)
"""


@pytest.mark.slow
@pytest.mark.parametrize("end", ["ended", "killed"])
def test_no_process_is_left_of_one_that_read_films(sound: Path, end: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, str(sound), end], capture_output=True, text=True, timeout=LONG_S, check=False
    )
    assert done.returncode == (-9 if end == "killed" else 0) and not done.stderr
    until(lambda: not is_running(int(done.stdout)))

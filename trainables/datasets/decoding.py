"""Compressed DICOM pixels, undone in processes of their own, as damaged ones can end the process that a native decoder is in.

Such a process runs this very file as a script. It imports nothing of the project, so that it is there in a fraction of a second.
"""

from __future__ import annotations

import atexit
import io
import logging
import os
import resource
import signal
import struct
import subprocess
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from multiprocessing import Pipe
from multiprocessing.connection import Connection
from threading import Timer
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from pydicom import dcmread
from pydicom.errors import BytesLengthException, InvalidDicomError

READ_ERRORS = (
    *(InvalidDicomError, BytesLengthException, ArithmeticError, AttributeError, LookupError, RuntimeError),
    *(TypeError, ValueError, EOFError, struct.error),
)
"""What pydicom raises on files that are damaged, incomplete or compressed in a way that it cannot undo."""
MOST_CPU_S: Final = 60
"""Processor time after which a film is given up; the largest that is read takes some ten seconds."""
MOST_S: Final = 600
"""Time after which it is given up even if it took no processor, sending it included; so is the start of a decoder."""
MOST_BYTES: Final = 4 * 2**30
"""Memory of a decoder, by addresses; the largest film that is read takes 1.3 GiB of it."""
TAIL: Final = 500
"""Characters that are told of what a decoder said which did not start."""

Stored = NDArray[np.integer[Any]]


class NoDecoderError(OSError):
    """No decoder can be started, which is no film's fault."""


class DecoderEndedError(RuntimeError):
    """A decoder ended before it gave an answer."""


class Decoder:
    """A process that undoes the compression of one film after the other."""

    def __init__(self) -> None:
        self._pipe, theirs = Pipe()
        with theirs:
            try:
                self._process = subprocess.Popen(
                    [sys.executable, "-P", __file__, str(theirs.fileno())],
                    env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "OPENBLAS_NUM_THREADS": "1"},
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.DEVNULL,
                    stderr=subprocess.PIPE,
                    pass_fds=[theirs.fileno()],
                    start_new_session=True,  # Ctrl-C is for the asker, with whom the pipe ends
                )
            except OSError as error:
                self._pipe.close()
                raise _not_started(str(error)) from error
        self._await_greeting()

    def _await_greeting(self) -> None:
        assert self._process.stderr
        with self._process.stderr as complaints:
            try:
                with self._limited():
                    self._pipe.recv_bytes()
            except (EOFError, OSError):
                ended = self.end()
                said = _one_line(complaints.read().decode(errors="replace"))
                raise _not_started(f"its end by {ended}{': ' if said else ''}{said[-TAIL:]}") from None
            except BaseException:
                self.end()
                raise

    def is_there(self) -> bool:
        """Whether it can be asked: it has nothing to say before that, but the end of its pipe."""
        return not self._pipe.poll()

    def levels(self, content: bytes) -> Stored | str:
        """The stored levels of a film by the bytes of its file, or why it has none.

        Raises:
            DecoderEndedError: they ended the process, or something else did.
        """
        try:
            with self._limited():
                self._pipe.send_bytes(content)
                answer: Stored | str = self._pipe.recv()
        except (EOFError, OSError):
            raise DecoderEndedError(f"pixels at which the decoder ended by {self.end()}") from None
        except BaseException:
            self.end()  # or the next film would get this one's answer
            raise
        return answer

    @contextmanager
    def _limited(self) -> Iterator[None]:
        """End the process after a time: while it lives, neither sending to it nor receiving need ever end."""
        timer = Timer(MOST_S, self._process.kill)
        timer.daemon = True
        timer.start()
        try:
            yield
        finally:
            timer.cancel()

    def end(self) -> str:
        """End the process, if it did not end before, and say how it ended."""
        self._pipe.close()
        try:
            status = self._process.wait(1)
        except subprocess.TimeoutExpired:
            self._process.kill()
            status = self._process.wait()
        return signal.Signals(-status).name if status < 0 else f"exit status {status}"


def _not_started(came: str) -> NoDecoderError:
    rule = "`trainables/datasets/decoding.py` must start as a process, to undo the compression of DICOM films"
    return NoDecoderError(f"{rule}, but got {came}. Mend what that names, or free memory, and try again.")


_idle: list[Decoder] = []
"""As many as films were decoded at once; there are no others, and the fork of a process has none of them."""
os.register_at_fork(after_in_child=_idle.clear)


def decoded(content: bytes) -> Stored:
    """The stored levels of a film of one compressed frame.

    Args:
        content: of its file.

    Raises:
        NoDecoderError: nothing can be decoded.
        RuntimeError: it cannot be decoded.
    """
    decoder = _free()
    answer = decoder.levels(content)
    _idle.append(decoder)
    if isinstance(answer, str):
        raise RuntimeError(answer)
    return answer


def _free() -> Decoder:
    with suppress(IndexError):  # none is idle
        while not (decoder := _idle.pop()).is_there():
            decoder.end()  # something ended it, which the next film is not to be blamed for
        return decoder
    return Decoder()


@atexit.register
def _end_all() -> None:
    while _idle:
        _idle.pop().end()


def _serve(pipe: Connection) -> None:
    """Answer until the asker closes the pipe or ends."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))  # which would hold the film and who it is of
    _allow(resource.RLIMIT_AS, MOST_BYTES)
    os.dup2(1, 2)  # which leads nowhere: of a film, libraries complain there of what the answer says too
    with suppress(EOFError, ConnectionError):
        pipe.send_bytes(b"")
        while True:
            content = pipe.recv_bytes()
            _allow(resource.RLIMIT_CPU, int(sum(os.times()[:2])) + MOST_CPU_S)
            pipe.send(_levels(content))


def _allow(what: int, most: int) -> None:
    """Set a limit of this process, as far as its hard one allows."""
    _, hard = resource.getrlimit(what)
    resource.setrlimit(what, (most if hard == resource.RLIM_INFINITY else min(most, hard), hard))


def _levels(content: bytes) -> Stored | str:
    try:
        return dcmread(io.BytesIO(content)).pixel_array
    except (*READ_ERRORS, MemoryError) as error:
        return _one_line(str(error)) or type(error).__name__
    except Exception as error:  # noqa: BLE001  # whatever it is, it is of this film and ends no decoder
        return f"{type(error).__name__}: {_one_line(str(error))}"


def _one_line(text: str) -> str:
    return " ".join(text.split())


if __name__ == "__main__":
    logging.disable()
    warnings.simplefilter("ignore")  # the asker has read the same file, and was warned
    _serve(Connection(int(sys.argv[1])))

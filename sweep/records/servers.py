"""Programs that show a run in a browser, on this machine alone, for the length of a block."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from http.client import HTTPException
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

HOST: Final = "127.0.0.1"
OWN: Final = (HOST, "localhost", "::1")
"""This machine, which no proxy of the environment leads to."""
PATIENCE_S: Final = 180.0
"""How long a program may take to answer: on a busy machine, MLflow imports for a minute."""
POLL_S: Final = 0.2
END_S: Final = 5.0


@dataclass(frozen=True, kw_only=True)
class Server:
    """A program that has been started.

    Attributes:
        name: what the user knows it by.
        address: the address of its pages, on the loopback interface.
        health: path that answers once it is ready.
        process: its own, with a group of its own.
        log: the file that takes what it prints.
    """

    name: str
    address: str
    health: str
    process: subprocess.Popen[bytes]
    log: Path

    def wait(self) -> None:
        """Wait until it answers.

        Raises:
            RuntimeError: it ended, or does not answer for minutes.
        """
        deadline = time.monotonic() + PATIENCE_S
        while not answers(self.address + self.health):
            if self.process.poll() is not None or time.monotonic() > deadline:
                said = self.log.read_text(errors="replace").strip().splitlines()[-1:] or ["nothing"]
                raise RuntimeError(f"`{self.name}` must answer at {self.address}, but did not, and said: {said[0]}")
            time.sleep(POLL_S)


@contextmanager
def started(name: str, arguments: Sequence[str], *, port: int, health: str) -> Iterator[Server]:
    """Start a program of this Python, and end it and what it has started after the block.

    Args:
        name: as the user knows it.
        arguments: of the Python interpreter.
        port: on which it listens, on the loopback interface.
        health: path that answers once it is ready.
    """
    with tempfile.TemporaryDirectory(prefix="sweep-ui-") as folder:
        log = Path(folder) / "log"
        with log.open("wb") as output:
            process = subprocess.Popen(
                [sys.executable, *arguments],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,  # Ctrl+C is for this process, which ends the others
                cwd=folder,
            )
        try:
            yield Server(name=name, address=f"http://{HOST}:{port}", health=health, process=process, log=log)
        finally:
            _end(process)


def _end(process: subprocess.Popen[bytes]) -> None:
    for number in (signal.SIGTERM, signal.SIGKILL):
        with suppress(ProcessLookupError):
            os.killpg(process.pid, number)
        with suppress(subprocess.TimeoutExpired):
            process.wait(END_S)


def answers(url: str, timeout_s: float = 5.0) -> bool:
    """Whether there is a page at an address."""
    try:
        proxies = [urllib.request.ProxyHandler({})] if urlsplit(url).hostname in OWN else []
        with urllib.request.build_opener(*proxies).open(url, timeout=timeout_s) as response:
            return bool(response.status < 400)
    except (OSError, ValueError, HTTPException):
        return False


def port_for(option: str, asked: int | None, first: int, taken: Sequence[int] = ()) -> int:
    """The port that was asked for, or the first free one.

    Args:
        option: name of the option that asks for one.
        asked: the port, if one was asked for.
        first: where to look from otherwise.
        taken: ports that others are about to take.

    Raises:
        ValueError: the one asked for is in use, or none is free.
    """
    if asked is not None:
        if asked in taken or not _is_free(asked):
            raise ValueError(
                f"`{option}` must be a free port, but got {asked}, on which another program listens. Leave the option out, "
                "and a free one is taken."
            )
        return asked
    for port in range(first, first + 100):
        if port not in taken and _is_free(port):
            return port
    raise ValueError(f"`{option}` must find a free port from {first} on, but got none. Name one.")


def _is_free(port: int) -> bool:
    with socket.socket() as trial:
        trial.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            trial.bind((HOST, port))
        except OSError:
            return False
    return True

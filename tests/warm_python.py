"""A Python that has imported already what takes long: `python -S -E warm_python.py SOCKET ARGUMENTS` is `python ARGUMENTS`.

A fresh process of the engine spends 20 s of a core on importing torch, diffusers and Ray. Here one server imports them
when it is first asked, and forks: a child gets the arguments, environment, folder and open files of the program that
asks, which passes signals on to it and ends as it does. xdist's and Ray's workers are started so as well. A test that is about
imports, or about programs without this project, starts `sys.executable`; so does every test where there is no Linux.
"""

from __future__ import annotations

import atexit
import gc
import json
import os
import select
import signal
import socket
import struct
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from shlex import quote

VARIABLE = "WARM_PYTHON"
"""Where the server listens, for the processes of the tests and those that they start."""
PLAIN = "WARM_PLAIN_PYTHON"
"""Where one listens that has imported what other programs read adapters with, and nothing of this project."""
OF_RAY = "RAY_JOB_CONFIG_JSON_ENV_VAR"
"""By what Ray takes settings of a job from the environment: here the Python of its workers."""
ENGINE = (
    "trainables.trial",
    "analysis.report",
    "analysis.features",
    "search_spaces",
    "mlflow",
    "pyarrow.fs",
    "pydantic",
    "jsonschema",
    "rich.progress",
    "typer",
    "sweep.config",
    *("wcwidth", "msgpack", "colorful", "pdb", "socketserver"),  # what Ray imports
)
"""What processes of the engine import, but Ray: as it is imported its library reads from the environment whose worker it is."""
OF_TESTS = (
    "analysis.studies.classifiers",
    "scipy.stats",
    "sklearn.metrics",
    "optuna",
    "torchxrayvision",
    "playwright.sync_api",
)
"""What test workers import besides."""
OF_OTHERS = (
    "diffusers.pipelines.stable_diffusion.pipeline_stable_diffusion",
    "diffusers.loaders.lora_pipeline",
    "transformers.models.clip.modeling_clip",
    "peft",
)
"""What programs import that know nothing of this project."""
SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
PRESTART = "RAY_prestart_worker_first_driver"
"""By what Ray would start workers ahead, with another Python than this one: nobody would use them."""
NUMBER = struct.Struct("!q")
NO_ANSWER = "`warm_python.py` must be answered by its server, but got no answer. Its own output says why it ended."


def command(variable: str = VARIABLE) -> list[str]:
    """What to start in place of `sys.executable`; `PLAIN` for programs that know nothing of this project."""
    return [sys.executable, "-S", "-E", __file__, os.environ[variable]] if variable in os.environ else [sys.executable]


@contextmanager
def server(*preloaded: str) -> Iterator[None]:
    """A server for the length of the tests, which the environment names to all processes that they start.

    Args:
        preloaded: modules that it imports when it is first asked.
    """
    with serving(VARIABLE, *preloaded):
        os.environ[OF_RAY] = json.dumps({"runtime_env": {"py_executable": " ".join(map(quote, command()))}})
        os.environ[PRESTART] = "0"
        try:
            yield
        finally:
            del os.environ[OF_RAY], os.environ[PRESTART]


@contextmanager
def serving(variable: str, *preloaded: str) -> Iterator[None]:
    """A server that the environment names by a variable.

    Args:
        variable: says where it listens, such as `VARIABLE` or `PLAIN`.
        preloaded: modules that it imports when it is first asked.
    """
    import subprocess  # not above: the program that asks is to start at once
    import tempfile

    with tempfile.TemporaryDirectory(prefix="warm-") as folder, socket.socket(socket.AF_UNIX) as listening:
        os.environ[variable] = f"{folder}/socket"
        listening.bind(os.environ[variable])
        listening.listen(64)
        arguments = [sys.executable, __file__, "--serve", str(listening.fileno()), *preloaded]
        process = subprocess.Popen(arguments, stdin=subprocess.PIPE, pass_fds=[listening.fileno()])
        listening.close()  # so that nobody waits for a server that has died
        try:
            yield
        finally:
            del os.environ[variable]
            process.communicate()  # closes its input, by which it knows that nobody needs it any more


def ask(path: str, arguments: list[str]) -> int:
    """Have a child forked that runs a program with what this process was given, and wait for its end.

    Returns:
        The child's exit status; where a signal ended it, the signal's number below zero.
    """
    task = {"arguments": arguments, "folder": str(Path.cwd()), "environment": dict(os.environ)}
    data = json.dumps(task).encode()
    signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)  # until it is known to whom they are passed on
    with socket.socket(socket.AF_UNIX) as connection:
        try:
            connection.connect(path)
            socket.send_fds(connection, [NUMBER.pack(len(data))], [0, 1, 2])
            connection.sendall(data)
            child = _number(connection)
        except OSError as error:
            raise SystemExit(NO_ANSWER) from error
        for number in SIGNALS:
            signal.signal(number, lambda sent, frame: os.kill(child, sent))
        signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)
        return _number(connection)


def _number(connection: socket.socket) -> int:
    data = connection.recv(NUMBER.size, socket.MSG_WAITALL)
    if len(data) < NUMBER.size:
        raise SystemExit(NO_ANSWER)
    return int(NUMBER.unpack(data)[0])


def end_as(status: int) -> None:
    """End this process as its child ended."""
    if status < 0:
        with suppress(OSError):  # SIGKILL has no handler to reset
            signal.signal(-status, signal.SIG_DFL)
        os.kill(os.getpid(), -status)
    os._exit(status)


def serve(listening: socket.socket, preloaded: list[str]) -> list[str]:
    """Fork a child for each program that asks, until the input of this process is closed.

    Returns:
        In each child, the arguments that it is to run with. The server itself does not return.
    """
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl+C is for the programs that asked
    while select.select([0, listening], [], [])[0] == [listening]:
        connection, _ = listening.accept()
        for name in preloaded:
            __import__(name)
        gc.freeze()  # else every child copies the pages of these modules when it looks for garbage in them
        if os.fork() == 0:
            listening.close()
            return _keep(connection)
        connection.close()
    os._exit(0)


def _keep(connection: socket.socket) -> list[str]:
    """In a process that looks after one child: pass its end on, and end it where the program that asked is gone."""
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    header, files, _, _ = socket.recv_fds(connection, NUMBER.size, 3)
    task = json.loads(connection.recv(*NUMBER.unpack(header), socket.MSG_WAITALL))
    if (child := os.fork()) == 0:
        connection.close()
        _become(task["folder"], task["environment"], files)
        return list(task["arguments"])
    for file in files:
        os.close(file)
    with suppress(BrokenPipeError):  # the program that asked may be gone already
        connection.sendall(NUMBER.pack(child))
    if select.select([os.pidfd_open(child), connection], [], [])[0] == [connection]:
        os.kill(child, signal.SIGKILL)
    with suppress(BrokenPipeError):
        connection.sendall(NUMBER.pack(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])))
    os._exit(0)


def _become(folder: str, environment: dict[str, str], files: list[int]) -> None:
    """Take over what a new process would have been given."""
    import numpy as np

    for number, file in enumerate(files):
        os.dup2(file, number)
        os.close(file)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(environment)
    added = [path for path in environment.get("PYTHONPATH", "").split(os.pathsep) if path and path not in sys.path]
    sys.path[1:1] = added
    _customize(added)
    np.random.seed()  # of its own, as Python's is anyhow; else all children would draw the same


def _customize(added: list[str]) -> None:
    """Do what Python does at its start where its path has a `sitecustomize`."""
    if any((Path(folder) / "sitecustomize.py").is_file() for folder in added):
        sys.modules.pop("sitecustomize", None)
        __import__("sitecustomize")


def run(arguments: list[str]) -> None:
    """Do what Python does with such arguments: a script, `-m MODULE` or `-c CODE`, and what they are given.

    Before them there may be `-P`, or `-u`, which changes nothing: xdist, which gives it, flushes what it writes.
    """
    import runpy

    first, *others = arguments[arguments[0] in ("-P", "-u") :]
    sys.path[0] = str(Path.cwd() if first in ("-m", "-c") else Path(first).absolute().parent)
    if arguments[0] == "-P":
        del sys.path[0]
    if first == "-m":
        sys.argv = others
        runpy.run_module(others[0], run_name="__main__", alter_sys=True)
    elif first == "-c":
        sys.argv = ["-c", *others[1:]]
        exec(compile(others[0], "<string>", "exec"), {"__name__": "__main__"})
    else:
        sys.argv = [first, *others]
        runpy.run_path(first, run_name="__main__")


def run_to_the_end(arguments: list[str]) -> None:
    """Run, and end without taking down all that was imported, which takes seconds of a core."""
    status = 0

    def end() -> None:
        for stream in (sys.stdout, sys.stderr):
            with suppress(OSError, ValueError):
                stream.flush()
        end_as(status)

    atexit.register(end)
    try:
        run(arguments)
    except SystemExit as error:
        status = error.code if isinstance(error.code, int) else int(error.code is not None)
        raise
    except KeyboardInterrupt:
        status = -signal.SIGINT
        raise
    except BaseException:
        status = 1
        raise


if __name__ == "__main__":
    if sys.argv[1] == "--serve":
        sys.path[0] = str(Path(__file__).resolve().parents[1])  # the folders beside this file have the packages' names
        run_to_the_end(serve(socket.socket(fileno=int(sys.argv[2])), sys.argv[3:]))
    else:
        end_as(ask(sys.argv[1], sys.argv[2:]))

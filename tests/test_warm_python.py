"""Programs that are forked from the warm Python get what they are given and end as by themselves."""

from __future__ import annotations

import json
import os
import posix
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
import warm_python
from patience import until

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(warm_python.VARIABLE not in os.environ, reason="there is none but on Linux"),
]
TELLING = """
import json, os, sys
print(json.dumps([sys.argv, os.getcwd(), sys.stdin.read(), os.environ["OWN"], "HOME" in os.environ, sys.path[1]]))
sys.exit(3)
"""
WAITING = """
import os, signal, sys, time
signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(143))
print(os.getpid(), flush=True)
time.sleep(300)
"""


def test_a_program_gets_what_it_is_given_and_ends_with_its_status(tmp_path: Path) -> None:
    environment = {"OWN": "mine", "PYTHONPATH": str(tmp_path)}
    runs = [
        subprocess.run(
            [*command, "-u", "-c", TELLING, "a", "b c"],
            input="hello",
            cwd=tmp_path,
            env=environment,
            capture_output=True,
            text=True,
            check=False,
        )
        for command in ([sys.executable], warm_python.command())
    ]
    assert runs[0].stdout == runs[1].stdout != ""
    assert [run.returncode for run in runs] == [3, 3]


@pytest.mark.parametrize(
    "code",
    [
        "import sys; sys.exit()",
        "import sys; sys.exit('no')",
        "raise ValueError('no')",
        "raise KeyboardInterrupt",
        "print(7)",
    ],
)
def test_a_program_ends_as_by_itself_whatever_ends_it(code: str) -> None:
    runs = [
        subprocess.run([*command, "-c", code], capture_output=True, text=True, check=False)
        for command in ([sys.executable], warm_python.command())
    ]
    assert runs[0].returncode == runs[1].returncode and runs[0].stdout == runs[1].stdout
    assert runs[0].stderr.splitlines()[-1:] == runs[1].stderr.splitlines()[-1:]


@pytest.mark.parametrize(("sent", "status"), [(signal.SIGTERM, 143), (signal.SIGINT, -2), (signal.SIGKILL, -9)])
def test_what_ends_the_program_that_asked_ends_its_child(sent: signal.Signals, status: int) -> None:
    command = [*warm_python.command(), "-c", WAITING]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as process:
        assert process.stdout is not None
        child = int(process.stdout.readline())
        process.send_signal(sent)
        assert process.wait(timeout=300) == status
    until(lambda: not psutil.pid_exists(child))


def test_a_program_that_is_gone_before_it_is_answered_ends_its_child() -> None:
    reading, writing = os.pipe()
    code = "import time; time.sleep(200); print('lived on')"
    task = json.dumps({"arguments": ["-c", code], "folder": str(Path.cwd()), "environment": dict(os.environ)}).encode()
    with socket.socket(socket.AF_UNIX) as connection:
        connection.connect(os.environ[warm_python.VARIABLE])
        socket.send_fds(connection, [warm_python.NUMBER.pack(len(task))], [0, writing, 2])
        connection.sendall(task)
    os.close(writing)
    with os.fdopen(reading) as output:
        assert output.read() == ""  # ends when nobody can write any more


def test_a_signal_before_the_child_is_known_is_passed_on(tmp_path: Path) -> None:
    """The server here is the test, so that it is known when the signal comes."""
    with socket.socket(socket.AF_UNIX) as listening, subprocess.Popen(["sleep", "300"]) as child:
        listening.bind(str(tmp_path / "socket"))
        listening.listen()
        command = [sys.executable, warm_python.__file__, str(tmp_path / "socket"), "-c", "pass"]
        with subprocess.Popen(command) as process, listening.accept()[0] as connection:
            connection.recv(warm_python.NUMBER.size, socket.MSG_WAITALL)
            process.send_signal(signal.SIGTERM)
            time.sleep(0.2)
            connection.sendall(warm_python.NUMBER.pack(child.pid))
            assert child.wait(timeout=300) == -signal.SIGTERM
            connection.sendall(warm_python.NUMBER.pack(143))
            assert process.wait(timeout=300) == 143


def test_an_error_and_a_signal_are_told() -> None:
    ends = [
        subprocess.run([*warm_python.command(), "-c", code], capture_output=True, text=True, check=False)
        for code in ("raise ValueError('no')", "import os; os.kill(os.getpid(), 9)")
    ]
    assert (ends[0].returncode, ends[1].returncode) == (1, -9)
    assert ends[0].stderr.endswith("ValueError: no\n")


def test_children_draw_different_random_numbers() -> None:
    code = "import random, numpy; print(random.random(), numpy.random.random())"
    command = [*warm_python.command(), "-c", code]
    first, second = (subprocess.run(command, capture_output=True, text=True, check=True).stdout.split() for _ in "ab")
    assert not set(first) & set(second)


def test_nobody_waits_for_a_server_that_could_not_import() -> None:
    script = (
        "import subprocess, warm_python\n"
        "with warm_python.server('no_such_module'):\n"
        "    for _ in range(2):\n"
        "        done = subprocess.run([*warm_python.command(), '-c', ''], stderr=subprocess.PIPE, text=True)\n"
        "        print(done.returncode, warm_python.NO_ANSWER in done.stderr)\n"
    )
    command = [sys.executable, "-c", script]
    environment = {name: value for name, value in os.environ.items() if name != warm_python.VARIABLE}
    folder = Path(warm_python.__file__).parent
    done = subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, timeout=300, check=False
    )
    assert done.stdout == "1 True\n1 True\n"
    assert "No module named 'no_such_module'" in done.stderr


def test_the_plain_one_knows_nothing_of_the_project(tmp_path: Path) -> None:
    code = "import sys; print(sorted({'diffusers', 'peft', 'trainables', 'sweep', 'analysis'} & sys.modules.keys()), sys.path[0])"
    command = [*warm_python.command(warm_python.PLAIN), "-P", "-c", code]
    plain = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True).stdout
    first = subprocess.run([sys.executable, "-P", "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert plain.startswith("['diffusers', 'peft'] ") and plain.split("] ")[1] == first.stdout.split("] ")[1]


def test_a_test_that_would_end_its_process_fails_in_its_place() -> None:
    """As `tests/conftest.py` has it; else a test worker is gone, and with it the tests that it was still to run."""
    assert os._exit is not posix._exit
    with pytest.raises(AssertionError, match=r"os\._exit\(3\) must not end the tests' own process"):
        os._exit(3)

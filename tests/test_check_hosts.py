"""scripts/check_hosts.py, with an ssh of ours that runs the script on this machine: what shells say besides is no matter."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
SSH = """#!/bin/sh
echo 'Welcome to this host'
echo "bash: warning: setlocale: LC_ALL: cannot change locale ($$)" >&2
for command; do :; done
exec $command
"""
HOSTS = "provider: {type: local, head_ip: 192.0.2.10, worker_ips: [192.0.2.11]}\nauth: {ssh_user: me}\n"


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """A home folder with a token, the project's environment and ~/shared, and an ssh and an rsync for the path."""
    files = {
        "bin/ssh": SSH,
        "bin/rsync": "#!/bin/sh\n",
        "radiograph-sweep/.venv/bin/python": "#!/bin/sh\necho Ray 2.60.0 and Python 3.11\n",
        ".ray/auth_token": "secret",
        "shared/study.yaml": "",
        "hosts.yaml": HOSTS,
    }
    for name, text in files.items():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        path.chmod(0o700)
    return tmp_path


def check(home: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "HOME": str(home), "PATH": f"{home / 'bin'}:{os.environ['PATH']}"}
    command = [sys.executable, str(ROOT / "scripts" / "check_hosts.py"), *arguments]
    return subprocess.run(command, env=environment, cwd=home, capture_output=True, text=True, check=False)


def test_what_shells_say_besides_makes_no_two_hosts_differ(home: Path) -> None:
    done = check(home, "hosts.yaml")
    assert done.returncode == 0, done.stderr
    assert done.stdout.endswith("the project's environment there: Ray 2.60.0 and Python 3.11.\n")
    assert [path.name for path in (home / "shared").iterdir()] == ["study.yaml"]


def test_a_problem_is_said_without_it(home: Path) -> None:
    (home / "shared" / "study.yaml").unlink()
    (home / "shared").rmdir()
    said = check(home, "hosts.yaml").stderr
    assert said.startswith("`~/shared on 192.0.2.10` must be a folder") and said.count("\n") == 1


def test_without_a_file_it_says_that_it_needs_one(home: Path) -> None:
    assert "`check_hosts.py` must be given one file" in check(home).stderr

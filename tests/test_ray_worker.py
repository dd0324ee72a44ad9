"""Ray's workers are started in the tests as Ray starts them."""

from __future__ import annotations

import json
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from shlex import quote

import pytest
import ray_worker

TELLING = "import os, sys; print(sys.argv[1:], sys.flags.no_site, os.environ['OWN'], os.getcwd(), os.getpid())"


@pytest.mark.slow
def test_it_becomes_the_program_that_rays_own_becomes(tmp_path: Path) -> None:
    """With its arguments, variables, folder and process, in which Ray looks for its worker."""
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "a worker.py").write_text(TELLING)
    context = {
        "env_vars": {"OWN": "as ${BEFORE}"},
        "py_executable": f"{quote(sys.executable)} -S",
        "command_prefix": ["cd", quote(str(tmp_path / "elsewhere")), "&&"],
    }
    spec = find_spec("ray")
    assert spec is not None and spec.origin is not None
    said = []
    for program in (Path(spec.origin).parent / "_private/workers/setup_worker.py", Path(ray_worker.__file__)):
        arguments = [
            str(tmp_path / "a worker.py"),
            "--node=1 2",
            f"--serialized-runtime-env-context={json.dumps(context)}",
        ]
        command = [sys.executable, str(program), *arguments, "--language=PYTHON", "--startup-token=7"]
        with subprocess.Popen(command, env={"BEFORE": "before"}, stdout=subprocess.PIPE, text=True) as process:
            output, _ = process.communicate(timeout=300)
            said.append(output.replace(str(process.pid), "this process"))
    assert said[0] == said[1] and said[0].startswith("['--node=1 2', '--startup-token=7'] 1 as before ")
    assert said[0].endswith("elsewhere this process\n")

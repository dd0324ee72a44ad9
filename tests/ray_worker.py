"""What Ray runs in place of its `setup_worker.py`, which imports Ray for half a second of a core before it starts a worker."""

from __future__ import annotations

import argparse
import json
import os
import shlex
import sys


def main() -> None:
    """Become the worker that the arguments and the runtime environment among them describe."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--serialized-runtime-env-context", default="{}")
    parser.add_argument("--language")
    options, arguments = parser.parse_known_args()
    context = json.loads(options.serialized_runtime_env_context)
    for name, value in context.get("env_vars", {}).items():
        os.environ[name] = os.path.expandvars(value)
    program = context.get("py_executable", sys.executable)
    command = [*context.get("command_prefix", []), "exec", program, *map(shlex.quote, arguments)]
    os.execvp("bash", ["bash", "-c", " ".join(command)])


if __name__ == "__main__":
    main()

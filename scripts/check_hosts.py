"""Look at your own machines, before `ray up` and where a worker stays away: `python scripts/check_hosts.py cluster-local.yaml`.

`ray up` waits a quarter of an hour for a machine that does not let it in, and what fails on a worker stands in a log of the head.
"""

from __future__ import annotations

import secrets
import shlex
import subprocess
import sys
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Final

import yaml

ANSWER_S: Final = 25
TOKEN: Final = "~/.ray/auth_token"
LOOK: Final = r"""
must() { echo "\`$1\` must $2, but got $3. $4"; exit 1; }
command -v rsync >/dev/null || must "$AT" 'have rsync, by which `ray up` copies the project' none 'Install the package rsync.'
[ -n "$HAS" ] || touch ~/shared/"$MARK" 2>/dev/null
[ -e ~/shared/"$MARK" ] || must "~/shared on $AT" 'be a folder to write to that all machines share' \
  'one without the file that the head has put there' 'Mount the shared folder there (NFS or any), or link ~/shared to it.'
own=$(~/radiograph-sweep/.venv/bin/python -c \
  'import importlib.metadata as m, sys; print("Ray", m.version("ray"), "and Python %d.%d" % sys.version_info[:2])' 2>/dev/null)
: "${own:=none}" "${HAS:=$own}"
[ "$HAS" = none ] || [ "$own" = "$HAS" ] || must "$AT" "have $HAS in ~/radiograph-sweep/.venv, as the head has" "$own" \
  "Remove ~/radiograph-sweep/.venv there and run \`ray up --yes $FILE\` again; \`ray monitor $FILE\` shows its set-up."
echo "$own"
"""
"""HAS is what the head has. The head comes first, without it, and leaves a mark in the shared folder for the others."""


def run_there(address: str, auth: Mapping[str, str], script: str) -> tuple[bool, str]:
    """Run a shell script on a machine; returns whether it succeeded, and what it said or why ssh failed."""
    login, key = auth["ssh_user"], auth.get("ssh_private_key")
    identity = ["-i", str(Path(key).expanduser()), "-o", "IdentitiesOnly=yes"] if key else []
    as_ray_connects = ["StrictHostKeyChecking=no", "UserKnownHostsFile=/dev/null"]
    options = [f"-o{option}" for option in ("BatchMode=yes", "ConnectTimeout=10", "LogLevel=ERROR", *as_ray_connects)]
    command = ["ssh", *identity, *options, f"{login}@{address}", "sh -s"]
    try:
        done = subprocess.run(command, input=script, capture_output=True, text=True, timeout=ANSWER_S, check=False)
    except subprocess.TimeoutExpired:
        return False, _refused(address, login, key, f"no answer within {ANSWER_S} s")
    if done.returncode == 255:  # ssh's own failures
        return False, _refused(address, login, key, (done.stderr.strip().splitlines() or ["no connection"])[-1])
    said = (
        done.stdout.strip().splitlines()
    )  # shells warn on stderr, as of a locale; profiles may greet before the script
    return done.returncode == 0, said[-1] if said else done.stderr.strip()


def _refused(address: str, login: str, key: str | None, reason: str) -> str:
    return (
        f"`{address}` must let {login} in by ssh without a password, but got {reason.strip()!r}. See that it is on and runs "
        f"sshd, and let your key in: ssh-copy-id {f'-i {key} ' if key else ''}{login}@{address}"
    )


def token_problem() -> str | None:
    """What is wrong with the token on this machine, with the remedy."""
    token = Path(TOKEN).expanduser()
    if not token.is_file():
        return f"`{TOKEN}` must be on this machine, but got none. Make it: (umask 077 && ray get-auth-token --generate)"
    mode = token.stat().st_mode & 0o777
    return (
        f"`{TOKEN}` must be yours alone, but got mode {mode:o}. Correct it: chmod 600 {TOKEN}" if mode & 0o077 else None
    )


def looks(file: str) -> list[tuple[bool, str]]:
    """Look at the head that a file for `ray up` names, then at its workers, each as `run_there` returns it."""
    named: dict[str, Any] = yaml.safe_load(Path(file).read_text())
    provider, auth = named["provider"], named["auth"]
    if provider["type"] != "local":
        return [
            (False, f"`provider.type` must be local, but got {provider['type']!r}. Use `ray monitor {file}` instead.")
        ]
    mark = f".mark-of-the-head-{secrets.token_hex(4)}"

    def look(address: str, has: str) -> tuple[bool, str]:
        given = {"AT": address, "FILE": file, "MARK": mark, "HAS": has}
        return run_there(address, auth, "".join(f"{name}={shlex.quote(text)}\n" for name, text in given.items()) + LOOK)

    head = look(provider["head_ip"], "")
    if not head[0]:
        return [head]
    try:
        with ThreadPoolExecutor(max_workers=16) as pool:
            return [head, *pool.map(lambda address: look(address, head[1]), provider["worker_ips"])]
    finally:
        run_there(provider["head_ip"], auth, f"rm ~/shared/{mark}")


def main() -> None:
    """Print what is wrong with this machine and the others, and end with exit code 1 if anything is."""
    if len(sys.argv) != 2:
        sys.exit("`check_hosts.py` must be given one file for `ray up`, but got none or more. Try cluster-local.yaml.")
    answers = looks(sys.argv[1])
    problems = [*filter(None, [token_problem()]), *(said for is_well, said in answers if not is_well)]
    if problems:
        sys.exit("\n".join(problems))
    print(f"{len(answers)} machines let you in and share ~/shared; the project's environment there: {answers[0][1]}.")


if __name__ == "__main__":
    main()

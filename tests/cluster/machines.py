"""Hosts made of namespaces: network, processes, mounts, IPC and name of their own, on a bridge that nobody else sees.

All of them live within the namespaces of one process that ends when its standard input does. The kernel ends the rest
with it, so nothing outlasts the tests, however they end.
"""

from __future__ import annotations

import os
import platform
import pty
import resource
import select
import shlex
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PATH = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin"}
IN_NEW_NAMESPACES = ("unshare", "--fork", "--pid", "--net", "--mount", "--ipc", "--uts", "bash")
NEEDED = (
    "ip link add lan type bridge && ip link add cable type veth peer name other && mount -t tmpfs tmpfs /mnt && "
    "cd /mnt && mkdir upper work laid && mount -t overlay -o lowerdir=/etc,upperdir=upper,workdir=work overlay laid"
)
"""What hosts and their network are made of."""
PROGRAMS = {"ip": "iproute2", "rsync": "rsync", "ssh": "openssh-client", "sshd": "openssh-server", "tmux": "tmux"}
"""What else than util-linux and passwd, which every Linux has, and its package."""
COMMAND_S = 1000.0
LOGS = ("monitor.*", "gcs_server.out", "raylet.out", "raylet.err", "dashboard.log", "job-driver-*")


def obstacle(programs: Mapping[str, str] = PROGRAMS) -> str | None:
    """Why this machine cannot make such hosts, or lacks programs, given with their packages; nothing where all is well."""
    if platform.system() != "Linux" or os.geteuid() != 0:
        return "hosts made of namespaces need Linux and root"
    missing = [package for name, package in programs.items() if shutil.which(name, path=PATH["PATH"]) is None]
    if missing:
        return f"{', '.join(missing)} must be installed"
    tried = subprocess.run([*IN_NEW_NAMESPACES, "-c", NEEDED], capture_output=True, text=True)
    return f"this machine makes no namespaces: {tried.stderr.strip()}" if tried.returncode else None


class First:
    """A process that is the first of its namespaces; all that runs in them ends with it."""

    def __init__(self, command: Sequence[str], log: Path, env: Mapping[str, str]) -> None:
        self._log = log
        with log.open("a") as errors:
            self._process = subprocess.Popen(
                command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=errors, text=True, env={**PATH, **env}
            )
        self.pid = int(self.hear())

    def hear(self) -> str:
        """The next line that it says."""
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError(f"`{self._log.stem}` must start, but got:\n{self._log.read_text()}")
        return line.strip()

    def end(self) -> None:
        """End it, and with it its namespaces."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait(timeout=30)

    def within(self, *command: str) -> list[str]:
        """The command that runs another in its namespaces."""
        return ["nsenter", f"--target={self.pid}", "--mount", "--net", "--pid", "--ipc", "--uts", "--", *command]


class Network:
    """A bridge, the hosts' disks and what they share."""

    def __init__(self, folder: Path) -> None:
        self.logs = folder
        self.disks = folder / "disks"
        self.disks.mkdir()
        script = (
            "read -r outside _ </proc/self/stat && echo $outside && mount --make-rprivate / && "
            f"cd {shlex.quote(str(folder))} && mount -t tmpfs tmpfs disks && mkdir -m 1777 disks/shared && "
            "ip link add lan type bridge && ip link set lan up && echo ready && cat >/dev/null"
        )
        self.first = First([*IN_NEW_NAMESPACES, "-c", script], folder / "network.log", {})
        self.first.hear()

    def connect(self, host: Host) -> None:
        """Lay a cable from the bridge to a host."""
        link = ["nsenter", f"--target={self.first.pid}", "--net", "ip", "link"]
        number = int(host.address.rpartition(".")[2])  # the same card when it is switched on again
        there = ["peer", "name", "eth0", "address", f"02:00:00:00:00:{number:02x}", "netns", str(host.first.pid)]
        subprocess.run([*link, "add", host.name, "type", "veth", *there], check=True, timeout=COMMAND_S)
        subprocess.run([*link, "set", host.name, "master", "lan", "up"], check=True, timeout=COMMAND_S)

    def end(self) -> None:
        """End all hosts, and with them the network."""
        self.first.end()


@dataclass
class Host:
    """A host of the network; its disk outlives its being switched off."""

    network: Network
    name: str
    address: str
    login: str
    part: str
    """What of the checkout lies in ~/radiograph-sweep before anything is copied there: `.venv`, or `.` for all."""

    def start(self) -> None:
        """Switch it on."""
        settings = {
            "NAME": self.name,
            "ADDRESS": f"{self.address}/24",
            "LOGIN": self.login,
            "PYTHON": sys.base_prefix,
            "DISK": str(self.network.disks / self.name),
            "SHARED": str(self.network.disks / "shared"),
            "ROOT": str(ROOT),
            "PART": self.part,
        }
        script = str(Path(__file__).with_name("host.sh"))
        command = self.network.first.within(*IN_NEW_NAMESPACES, script)
        self.first = First(command, self.network.logs / f"{self.name}.log", settings)
        self.network.connect(self)
        self.first.hear()

    def end(self) -> None:
        """Switch it off, as a power cut does."""
        self.first.end()

    def command(self, line: str, login: str | None = None) -> list[str]:
        """The command of this machine that runs a line in a login shell of the host."""
        return self.first.within("runuser", "-l", login or self.login, "-c", line)

    def run(self, line: str, login: str | None = None) -> subprocess.CompletedProcess[str]:
        """Run a line in a login shell; what it says on either channel is in `stdout`."""
        try:
            return subprocess.run(
                self.command(line, login),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                errors="replace",
                timeout=COMMAND_S,
            )
        except subprocess.TimeoutExpired as error:
            said = (error.stdout or b"").decode(errors="replace")
            raise TimeoutError(f"`{line}` must end within {COMMAND_S:.0f} s, but got:\n{said[-5000:]}") from error

    def do(self, line: str, login: str | None = None) -> str:
        """Run a line that must succeed, and return what it said."""
        done = self.run(line, login)
        assert done.returncode == 0, f"{self.name}$ {line}\n{done.stdout[-5000:]}\n-> exit code {done.returncode}"
        return done.stdout

    @property
    def home(self) -> Path:
        """The user's home folder, as this machine sees it."""
        return Path(f"/proc/{self.first.pid}/root/home/{self.login}")

    def last_words(self) -> str:
        """The ends of what the host, its sshd and its Ray have logged."""
        names = " ".join(f"/tmp/ray/session_latest/logs/{pattern}" for pattern in LOGS)
        said = self.run(
            f"tail -n 15 /mnt/disk/sshd.log {names} 2>/dev/null; ps -eo pid,etimes,args | cut -c 1-150", "root"
        )
        return (
            f"\n===== {self.name} =====\n{(self.network.logs / f'{self.name}.log').read_text()}{said.stdout[-12000:]}"
        )


def processor_s() -> float:
    """The processor time of all commands that were run and have ended: what they take, whatever else the machine does."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def wait_for(what: str, ready: Callable[[], object]) -> None:
    """Wait until something is so, and fail with its name where that takes too long."""
    deadline = time.monotonic() + COMMAND_S
    while not ready():
        assert time.monotonic() < deadline, f"`{what}` must be there within {COMMAND_S:.0f} s, but is not"
        time.sleep(1)  # a look at a host takes a tenth of a second of a core


def type_into(host: Host, line: str, typed: Sequence[str]) -> str:
    """Run a command in a terminal and type lines into the shell that it opens; returns all that the terminal showed."""
    controller, terminal = pty.openpty()
    streams = {"stdin": terminal, "stdout": terminal, "stderr": terminal}
    process = subprocess.Popen(host.command(line), start_new_session=True, **streams)
    os.close(terminal)
    shown, waiting, deadline = "", "".join(f"{text}\r" for text in typed), time.monotonic() + COMMAND_S
    try:
        while process.poll() is None:
            assert time.monotonic() < deadline, f"`{line}` must end in time, but showed\n{shown[-5000:]}"
            if select.select([controller], [], [], 0.2)[0]:
                with suppress(OSError):  # the terminal is closed by its last user
                    shown += os.read(controller, 65536).decode(errors="replace")
            elif waiting and "$ " in shown:
                os.write(controller, waiting.encode())
                waiting = ""
    finally:
        process.kill()
        os.close(controller)
    return shown

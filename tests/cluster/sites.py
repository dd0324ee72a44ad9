"""The two hosts of cluster-local.yaml, and the desk of the person who makes a cluster of them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import yaml
from machines import ROOT, Host, Network

LOCAL = yaml.safe_load((ROOT / "cluster-local.yaml").read_text())


@dataclass(frozen=True)
class Site:
    """The hosts that cluster-local.yaml names, at the addresses that stand there, and the desk."""

    network: Network
    desk: Host
    head: Host
    worker: Host

    @property
    def hosts(self) -> tuple[Host, ...]:
        return self.desk, self.head, self.worker

    @property
    def shared(self) -> Path:
        return self.head.home / "shared"


def start_site(folder: Path, part: str = ".venv") -> Site:
    """Switch everything on, and let the desk's key in, as a person does before the first `ray up`.

    Args:
        folder: for the hosts' logs.
        part: of the checkout that the two hosts have.
    """
    network, login = Network(folder), LOCAL["auth"]["ssh_user"]
    head, worker = (
        Host(network, name, address, login, part)
        for name, address in (("head", LOCAL["provider"]["head_ip"]), ("worker", LOCAL["provider"]["worker_ips"][0]))
    )
    site = Site(network, Host(network, "desk", "192.0.2.2", login, "."), head, worker)
    for host in site.hosts:
        host.start()
    key = LOCAL["auth"]["ssh_private_key"]
    site.desk.do(f"mkdir -p ~/.ssh && ssh-keygen -q -t ed25519 -N '' -f {key}")
    site.desk.do("echo 'cd ~/radiograph-sweep && . .venv/bin/activate' >> ~/.profile")
    public = site.desk.do(f"cat {key}.pub").strip()
    for host in (head, worker):
        host.do(f"mkdir -p ~/.ssh && echo '{public}' > ~/.ssh/authorized_keys && chmod -R go= ~/.ssh")
    return site

"""The two hosts of cluster-local.yaml, and the desk of the person who makes a cluster of them."""

from __future__ import annotations

import re
import shutil
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import yaml
from machines import ROOT, Host, Network

from analysis.files import user_cache
from trainables.datasets.phantom import PhantomSource
from trainables.datasets.writing import write_dataset

STUDY = {
    "data": {"source": "prepared", "path": "prepared"},
    "objectives": ["vendi", "fid", "trainable_parameters"],
    "search": {
        "strategies": ["unet", "lora"],
        "num_trials": 2,
        "scheduler": "none",
        "hyperparameters": {"unet": {"lr": 1e-3, "batch_size": 8}, "lora": {"lr": 7e-3, "batch_size": 8, "rank": 8}},
    },
    "training": {"num_epochs": 3},
    "evaluation": {"images_per_condition": 8, "num_steps": 4},
}
"""Small, but a knee is found: full fine-tuning gains 0.9 in diversity, several times its error. Without an objective that is a
time, nothing depends on where it runs."""
IMPATIENT = {
    "AUTOSCALER_UPDATE_INTERVAL_S": 1,
    "AUTOSCALER_HEARTBEAT_TIMEOUT_S": 10,
    "RAY_gcs_rpc_server_reconnect_timeout_s": 10,
    "RAY_health_check_failure_threshold": 2,
    "RAY_worker_niceness": 0,
}
"""How often the head looks after its hosts, every 5 s by default; how long Ray waits for a host, and a host for its head,
before they are taken for lost: 30, 60 and some 20 s; and how nice Ray's workers are: at 15, its default, they get next to
nothing beside other tests."""
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
    with ThreadPoolExecutor() as pool:
        list(pool.map(Host.start, site.hosts))
    key = LOCAL["auth"]["ssh_private_key"]
    site.desk.do(f"mkdir -p ~/.ssh && ssh-keygen -q -t ed25519 -N '' -f {key}")
    site.desk.do("echo 'cd ~/radiograph-sweep && . .venv/bin/activate' >> ~/.profile")
    public = site.desk.do(f"cat {key}.pub").strip()
    for host in (head, worker):
        host.do(f"mkdir -p ~/.ssh && echo '{public}' > ~/.ssh/authorized_keys && chmod -R go= ~/.ssh")
        host.do(f"echo export {' '.join(f'{name}={value}' for name, value in IMPATIENT.items())} >> ~/.profile")
    if user_cache().is_dir():  # else the head's first sweep makes MLflow's store and Vega anew, which takes seconds
        half_written = shutil.ignore_patterns(".*")  # by tests that run beside these
        shutil.copytree(user_cache(), head.home / ".cache" / user_cache().name, ignore=half_written)
        head.do(f"chown -R {login}: ~{login}/.cache", "root")
    return site


def lay_out_study(folder: Path) -> None:
    """Put the films and the configuration of a small sweep into a folder, for anyone to read."""
    write_dataset(PhantomSource(num_patients=120, resolution_px=64, seed=0), folder / "prepared")
    (folder / "study.yaml").write_text(yaml.safe_dump(STUDY))
    for made in (folder / "prepared", *(folder / "prepared").iterdir(), folder / "study.yaml"):
        made.chmod(0o755 if made.is_dir() else 0o644)


def placed(run: Path) -> set[str]:
    """The hosts on which the trials of a run were computed."""
    states = "".join(file.read_text() for file in run.glob("ray/tune/experiment_state-*.json"))
    return set(re.findall(r'hostname\\": \\"(\w+)', states))

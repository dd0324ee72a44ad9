"""What `scripts/check_hosts.py` says of machines that cannot be a cluster, on two hosts."""

from __future__ import annotations

import re
import runpy

import pytest
from machines import ROOT, processor_s
from sites import LOCAL, Site

pytestmark = [pytest.mark.timeout(1500), pytest.mark.slow]

WORKER = LOCAL["provider"]["worker_ips"][0]
HOME = f"/home/{LOCAL['auth']['ssh_user']}"
PROBLEM_S = 60.0
"""Within which a person is told what is wrong, where the machine has nothing else to do."""
ANSWER_S: float = runpy.run_path(str(ROOT / "scripts" / "check_hosts.py"))["ANSWER_S"]
TOKEN = "(umask 077 && ray get-auth-token --generate)"


@pytest.fixture(scope="module", autouse=True)
def token(site: Site) -> None:
    refused = problems(site)
    assert refused == [f"`~/.ray/auth_token` must be on this machine, but got none. Make it: {TOKEN}"]
    site.desk.do(TOKEN)


def problems(site: Site) -> list[str]:
    """What is said to be wrong with the machines, in time: it waits for the head and then for all workers at once."""
    began = processor_s()
    done = site.desk.run("python scripts/check_hosts.py cluster-local.yaml")
    assert processor_s() - began + 2 * ANSWER_S < PROBLEM_S
    return done.stdout.splitlines() if done.returncode else []


def test_all_is_well(site: Site) -> None:
    assert problems(site) == []
    assert site.desk.do("stat -c %a ~/.ray/auth_token") == "600\n"


def test_a_token_that_others_may_read(site: Site) -> None:
    site.desk.do("chmod 644 ~/.ray/auth_token")
    (said,) = problems(site)
    site.desk.do("chmod 600 ~/.ray/auth_token")
    assert said == "`~/.ray/auth_token` must be yours alone, but got mode 644. Correct it: chmod 600 ~/.ray/auth_token"


def test_a_host_that_refuses_ssh(site: Site) -> None:
    site.worker.do("mv ~/.ssh/authorized_keys ~/.ssh/away")
    (said,) = problems(site)
    site.worker.do("mv ~/.ssh/away ~/.ssh/authorized_keys")
    assert re.fullmatch(
        rf"`{WORKER}` must let ubuntu in by ssh without a password, but got '.*Permission denied.*'\. See that it is on and "
        rf"runs sshd, and let your key in: ssh-copy-id -i ~/.ssh/id_ed25519 ubuntu@{WORKER}",
        said,
    )


def test_a_host_that_is_off(site: Site) -> None:
    site.worker.do("ip link set eth0 down", "root")
    site.desk.do("ip neighbour flush dev eth0", "root")  # as time does
    (said,) = problems(site)
    site.worker.do("ip link set eth0 up && ip route add default dev eth0", "root")
    assert re.match(rf"`{WORKER}` must let ubuntu in by ssh .*(timed out|No route)", said)


def test_a_folder_that_is_not_shared(site: Site) -> None:
    site.worker.do(f"umount {HOME}/shared", "root")
    (said,) = problems(site)
    site.worker.do(f"mount --bind /mnt/shared {HOME}/shared", "root")
    assert said == (
        f"`~/shared on {WORKER}` must be a folder to write to that all machines share, but got one without the file that "
        "the head has put there. Mount the shared folder there (NFS or any), or link ~/shared to it."
    )


def test_a_worker_with_another_ray_or_none(site: Site) -> None:
    packages = f"{HOME}/radiograph-sweep/.venv/lib/python3*/site-packages"
    site.worker.do(f"sed -i.bak 's/^Version: .*/Version: 2.50.0/' {packages}/ray-*.dist-info/METADATA", "root")
    (other,) = problems(site)
    site.worker.do(f"for kept in {packages}/ray-*.dist-info/METADATA.bak; do mv $kept ${{kept%.bak}}; done", "root")
    site.worker.do("mv ~/radiograph-sweep/.venv/bin/python ~/radiograph-sweep/.venv/bin/away")
    (none,) = problems(site)
    site.worker.do("mv ~/radiograph-sweep/.venv/bin/away ~/radiograph-sweep/.venv/bin/python")
    rule = rf"`{WORKER}` must have (Ray \S+ and Python \S+) in ~/radiograph-sweep/.venv, as the head has, but got "
    remedy = (
        r"\. Remove ~/radiograph-sweep/.venv there and run `ray up --yes cluster-local.yaml` again; `ray monitor .*"
    )
    assert re.fullmatch(rf"{rule}Ray 2\.50\.0 and Python \S+{remedy}", other)
    assert re.fullmatch(rf"{rule}none{remedy}", none)

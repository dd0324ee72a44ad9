"""The script for Slurm, read by Slurm itself on two hosts."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from machines import obstacle, wait_for
from sites import Site, start_site

pytestmark = pytest.mark.slow

SLURM = {"slurmctld": "slurmctld", "slurmd": "slurmd", "sbatch": "slurm-client"}
HOSTS = "192.0.2.10 head\n192.0.2.11 worker"
SLURM_CONF = """
ClusterName=two
SlurmctldHost=head(192.0.2.10)
AuthType=auth/none
CredType=cred/none
SlurmUser=root
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
StateSaveLocation=/mnt/disk/slurmctld
SlurmdSpoolDir=/mnt/disk/slurmd
SlurmctldLogFile=/mnt/disk/slurmctld.log
SlurmdLogFile=/mnt/disk/slurmd.log
SlurmctldPidFile=/run/slurmctld.pid
SlurmdPidFile=/run/slurmd.pid
NodeName=head NodeAddr=192.0.2.10 CPUs=2
NodeName=worker NodeAddr=192.0.2.11 CPUs=2
PartitionName=all Nodes=ALL Default=YES
"""


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """Two hosts that have the checkout, with Slurm."""
    reason = obstacle() or obstacle(SLURM)
    if reason is not None:
        pytest.skip(reason)
    started = start_site(tmp_path_factory.mktemp("slurm"), part=".")
    for host, daemons in ((started.head, "slurmctld && slurmd"), (started.worker, "slurmd")):
        host.do("mkdir -p /etc/slurm /mnt/disk/slurmctld /mnt/disk/slurmd", "root")
        host.do(f"echo '{HOSTS}' >> /etc/hosts && echo '{SLURM_CONF}' > /etc/slurm/slurm.conf && {daemons}", "root")
    wait_for("two idle nodes", lambda: "2   idle" in started.head.run("sinfo").stdout, 60)
    yield started
    started.network.end()


def test_slurm_reads_its_options(site: Site) -> None:
    assert "to start at" in site.head.do(
        "cd ~/radiograph-sweep && sbatch --test-only --cpus-per-task=2 scripts/slurm.sh"
    )
    refused = site.head.run("cd ~/radiograph-sweep && sed 's/--nodes=/--nodez=/' scripts/slurm.sh | sbatch --test-only")
    assert "unrecognized option '--nodez=2'" in refused.stdout


def test_outside_of_slurm_it_says_how_to_submit_it(site: Site) -> None:
    said = site.head.run("cd ~/radiograph-sweep && bash scripts/slurm.sh")
    assert said.returncode != 0
    assert "Submit it: sbatch scripts/slurm.sh" in said.stdout

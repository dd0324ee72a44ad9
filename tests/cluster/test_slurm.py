"""The script for Slurm, by Slurm itself on two hosts: a job that is told to end closes its records, and another goes on."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pandas as pd
import pytest
from machines import obstacle, wait_for
from sites import Site, lay_out_study, placed, start_site

pytestmark = [pytest.mark.timeout(1500), pytest.mark.slow]

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
SUBMIT = "cd ~/radiograph-sweep && sbatch --cpus-per-task=1 --output=$HOME/shared/%j.log scripts/slurm.sh"
SWEEP = "--config ~/shared/study.yaml --set data.path=$HOME/shared/prepared --out ~/shared/runs/slurm"


@pytest.fixture(scope="module")
def site(compiled: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """Two hosts that have the checkout, with Slurm."""
    reason = obstacle(SLURM)
    if reason is not None:
        pytest.skip(reason)
    started = start_site(tmp_path_factory.mktemp("slurm"), part=".")
    for host, daemons in ((started.head, "slurmctld && slurmd"), (started.worker, "slurmd")):
        host.do("mkdir -p /etc/slurm /mnt/disk/slurmctld /mnt/disk/slurmd", "root")
        host.do(f"echo '{HOSTS}' >> /etc/hosts && echo '{SLURM_CONF}' > /etc/slurm/slurm.conf && {daemons}", "root")
    wait_for("two idle nodes", lambda: "2   idle" in started.head.run("sinfo").stdout)
    yield started
    started.network.end()


def end_of(site: Site, job: str) -> str | None:
    """Slurm's word for how a job ended; None of one that goes on."""
    state = re.findall(r"JobState=(\w+)", site.head.do(f"scontrol show job {job}"))[0]
    return None if state in ("PENDING", "CONFIGURING", "RUNNING", "COMPLETING") else str(state)


def submit(site: Site) -> str:
    return re.findall(r"Submitted batch job (\d+)", site.head.do(f"{SUBMIT} {SWEEP}"))[0]


def test_slurm_reads_its_options(site: Site) -> None:
    assert "to start at" in site.head.do(SUBMIT.replace("sbatch", "sbatch --test-only"))
    refused = site.head.run("cd ~/radiograph-sweep && sed 's/--nodes=/--nodez=/' scripts/slurm.sh | sbatch --test-only")
    assert "unrecognized option '--nodez=2'" in refused.stdout


def test_outside_of_slurm_it_says_how_to_submit_it(site: Site) -> None:
    said = site.head.run("cd ~/radiograph-sweep && bash scripts/slurm.sh")
    assert said.returncode != 0
    assert "Submit it: sbatch scripts/slurm.sh" in said.stdout


@pytest.mark.long
def test_a_job_that_is_told_to_end_goes_on_in_another(site: Site) -> None:
    lay_out_study(site.shared)
    run = site.shared / "runs" / "slurm"
    first = submit(site)
    wait_for("a trial", lambda: any((run / "trials").glob("*")) or end_of(site, first))
    site.head.do(f"scancel --batch --signal=TERM {first}")  # as --signal=B:TERM does before the time limit
    wait_for("the end of the job", lambda: end_of(site, first))
    assert end_of(site, first) == "FAILED" and "--resume" in log(site, first), log(site, first)
    second = submit(site)
    wait_for("the end of the job", lambda: end_of(site, second))
    assert end_of(site, second) == "COMPLETED", log(site, second)
    assert set(pd.read_parquet(run / "trials.parquet")["status"]) == {"completed"}
    assert placed(run) <= {"head", "worker"}
    assert not site.worker.run("pgrep raylet").stdout


def log(site: Site, job: str) -> str:
    return Path(site.shared / f"{job}.log").read_text()

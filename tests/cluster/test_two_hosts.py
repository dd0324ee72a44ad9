"""README's section on clusters, word for word, on two hosts: from the first command to nothing left behind."""

from __future__ import annotations

import os
import re
import subprocess
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pandas as pd
import pytest
import warm_python
from machines import ROOT, Host, processor_s, type_into, wait_for
from readme import blocks
from sites import LOCAL, Site, lay_out_study, placed

from sweep.records.events import Retried, read_events
from sweep.trials.cluster import HOW_TO_GIVE_A_TOKEN, PROBE_S

pytestmark = [pytest.mark.timeout(1500), pytest.mark.slow]

MEASURED = ["strategy", "param/lr", "param/batch_size", "loss", "fid_mini", "vendi_mini", "trainable_parameters"]
HEAD = LOCAL["provider"]["head_ip"]
WITHOUT_THE_TOKEN = ("RAY_AUTH_MODE=disabled", f"RAY_AUTH_MODE=token RAY_AUTH_TOKEN={'0' * 64}")
AGAIN = ("server exited unexpectedly", "The current node timed out during startup")
"""On a busy machine a person types a command again: Ray asks tmux for a session before it makes one, and a tmux that is still ending
for lack of one says so; and Ray gives its processes half a minute to start."""
LAST_TO_END = {"ray::DashboardAgent", "ray::RuntimeEnvAgent", "log_monitor.py"}
"""Of a worker whose head is gone, what tries to tell the head so: for a minute, or for ever where it had more to tell (Ray 2.60)."""
WELCOME, _NO_TERMINAL = blocks("Your own machines")
JOB = [command.line for command in _NO_TERMINAL]


@pytest.fixture(scope="module")
def swept(site: Site) -> str:
    """All commands of README up to the last, `ray down`; returns what the attached terminal showed."""
    desk, shown = site.desk, ""
    study = desk.home / "radiograph-sweep" / "study"
    study.mkdir()
    lay_out_study(study)
    desk.do(f"chown -R {desk.login}: ~{desk.login}/radiograph-sweep/study", "root")
    for command in WELCOME[:-1]:
        if command.typed:
            shown = type_into(desk, command.line, command.typed)
            if any(said in shown for said in AGAIN):
                shown = type_into(desk, command.line, command.typed)
            assert (site.shared / "study" / "exported").is_dir(), shown
        else:
            done = desk.run(command.line)
            if done.returncode:
                assert any(said in done.stdout for said in AGAIN), done.stdout[-5000:]
                desk.do(command.line)
    return shown


@pytest.fixture(scope="module")
def cut(site: Site, swept: str) -> str:
    """The job of README, whose host is switched off in the middle and on again; returns what became of it."""
    submit, listing = JOB
    site.desk.do(submit)
    wait_for("a trial of the job", lambda: any((run_of(site, "second") / "trials").glob("*")))
    site.worker.end()
    site.worker.start()
    wait_for("the end of the job", lambda: not site.head.run("pgrep -f 'python -m [s]weep.run .*runs/second'").stdout)
    wait_for("the state of the job", lambda: state(site.desk.do(listing)) != "RUNNING")
    return state(site.desk.do(listing))


def run_of(site: Site, name: str) -> Path:
    return site.shared / "study" / "runs" / name


def state(listing: str) -> str:
    """The state of the submitted job in what `ray job list` prints, beside drivers that were not submitted."""
    (job,) = (part for part in listing.split("JobDetails(")[1:] if "SUBMISSION" in part)
    return re.findall(r"JobStatus\.(\w+)", job)[0]


def trials(run: Path) -> pd.DataFrame:
    return pd.read_parquet(run / "trials.parquet").sort_values("strategy").reset_index(drop=True)


def test_the_sweep_ran_on_the_second_host(site: Site, swept: str) -> None:
    run = run_of(site, "first")
    assert (run / "trials.parquet").is_file(), swept
    assert set(trials(run)["status"]) == {"completed"}, trials(run)["reason"].tolist()
    assert placed(run) == {"worker"}


def test_what_the_sweep_found_is_on_the_desk(site: Site, swept: str) -> None:
    study = site.desk.home / "radiograph-sweep" / "study"
    assert (study / "runs" / "first" / "report.html").stat().st_size > 0
    assert (study / "exported" / "model_index.json").is_file(), swept


def test_the_token_is_for_its_owner_alone_everywhere(site: Site, swept: str) -> None:
    assert {host.name: host.do("stat -c %a ~/.ray/auth_token").strip() for host in site.hosts} == {
        "desk": "600",
        "head": "600",
        "worker": "600",
    }


def test_the_dashboard_answers_on_loopback_only(site: Site, swept: str) -> None:
    ask = "python3 -c 'import sys, urllib.request as u; u.urlopen(sys.argv[1], timeout=60)' http://{}:8265/api/jobs/"
    assert "401: Unauthorized" in site.head.run(ask.format("127.0.0.1")).stdout
    assert "refused" in site.head.run(ask.format(HEAD)).stdout
    assert "refused" in site.desk.run(ask.format(HEAD)).stdout


def test_a_connection_without_the_token_is_refused(site: Site, swept: str) -> None:
    command = f"python -m sweep.run --set compute.address={HEAD}:6379 --out runs/without-"
    began = processor_s()
    with ThreadPoolExecutor() as pool:
        lines = [f"cd ~/shared/study && {given} {command}{number}" for number, given in enumerate(WITHOUT_THE_TOKEN)]
        refusals = list(pool.map(site.worker.run, lines))
    # It asks without a token and with one. A busy machine takes what it takes.
    assert processor_s() - began + 2 * PROBE_S < 60
    for refusal in refusals:
        message = " ".join(refusal.stdout.split())
        assert refusal.returncode != 0
        assert "must be a cluster that lets this sweep in" in message and HOW_TO_GIVE_A_TOKEN in message
    assert not list(run_of(site, "first").parent.glob("without-*"))


@pytest.mark.long
def test_the_same_sweep_on_one_machine_gives_the_same(site: Site, swept: str, tmp_path: Path) -> None:
    lay_out_study(tmp_path)
    command = [*warm_python.command(), "-m", "sweep.run", "--config", "study.yaml", "--out", "run"]
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, cwd=tmp_path, env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    assert done.returncode == 0, done.stdout
    there, here = trials(run_of(site, "first")), trials(tmp_path / "run")
    pd.testing.assert_frame_equal(there[MEASURED], here[MEASURED], check_exact=True)


@pytest.mark.long
def test_a_job_goes_on_when_its_host_comes_back(site: Site, cut: str) -> None:
    assert cut == "SUCCEEDED"
    first, second = run_of(site, "first"), run_of(site, "second")
    assert any(isinstance(event, Retried) for event in read_events(second / "events.log"))
    assert set(trials(second)["status"]) == {"completed"}, trials(second)["reason"].tolist()
    pd.testing.assert_frame_equal(trials(first)[MEASURED], trials(second)[MEASURED], check_exact=True)


def test_ray_down_ends_all_that_computes(site: Site, swept: str) -> None:
    assert WELCOME[-1].line.startswith("ray down")
    assert all("raylet" in ray_processes(host) for host in (site.head, site.worker))
    site.desk.do(WELCOME[-1].line)
    wait_for("the end of Ray", lambda: not ray_processes(site.head) and ray_processes(site.worker) <= LAST_TO_END)
    site.worker.do("ray stop")
    assert not ray_processes(site.worker)


def ray_processes(host: Host) -> set[str]:
    """The names of the processes of Ray, of its workers and of what looks after them."""
    listed = host.run(f"ps -u {host.login} -o args=").stdout
    return set(re.findall(r"^ray(?:::|-dashboard-)\w+|\b(?:raylet|gcs_server|\w+\.py)(?= --)", listed, re.MULTILINE))


def test_nothing_is_left_behind(site: Site) -> None:
    namespaces = {
        Path(f"/proc/{host.first.pid}/ns/{kind}").readlink() for host in site.hosts for kind in ("net", "pid", "mnt")
    }
    site.network.end()
    left = {link for link in Path("/proc").glob("[0-9]*/ns/*") if _target(link) in namespaces}
    assert left == set()
    assert not {"lan", *(host.name for host in site.hosts)} & {link.name for link in Path("/sys/class/net").iterdir()}


def _target(link: Path) -> Path | None:
    try:
        return link.readlink()
    except OSError:  # it has ended
        return None

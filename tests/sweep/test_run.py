"""`python -m sweep.run`: wrong input is answered, and what goes wrong on the way loses nothing."""

from __future__ import annotations

import json
import os
import resource
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pandas as pd
import pytest
import typer
import warm_python
from click.testing import Result
from typer.testing import CliRunner

from analysis.front.pareto import Front
from sweep import run
from sweep.engine import Outcome
from trainables.base_models.models import MINI_FOLDER
from trainables.checkpoints import read_checkpoint
from trainables.datasets.phantom import PhantomSource
from trainables.datasets.store import PreparedDataset
from trainables.datasets.writing import write_dataset
from trainables.suspending import IN_TRAINING

ROOT = Path(__file__).resolve().parents[2]
TINY = (
    "--set",
    "data.num_patients=60",
    "--set",
    "evaluation.images_per_condition=2",
    "--set",
    "evaluation.num_steps=1",
)


def invoke(*options: str) -> Result:
    app = typer.Typer()
    app.command()(run.main)
    return CliRunner().invoke(app, list(options))


def refused(result: Result) -> str:
    """What a refused command says: one error, no traceback."""
    assert result.exit_code == 1, result.output
    assert result.exception is None or isinstance(result.exception, SystemExit)
    assert result.stderr.startswith("error ") and "Traceback" not in result.stderr
    return result.stderr


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> PreparedDataset:
    source = PhantomSource(num_patients=40, resolution_px=64, seed=3)
    return write_dataset(source, tmp_path_factory.mktemp("data") / "phantom")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("options", "answer"),
    [
        (("--preset", "dmeo"), "`preset` must be a known name, but got 'dmeo'. Did you mean 'demo'?"),
        (("--set", "training.num_epoch=3"), "but got 'training.num_epoch'. Did you mean 'training.num_epochs'"),
        (("--set", "search.strategies=[lora,bitfti]"), "but got 'bitfti'. Did you mean 'bitfit'?"),
        (("--set", "objectives=[fid,vendy]"), "but got 'vendy'. Did you mean 'vendi'"),
        (("--set", "search.space=crore"), "but got 'crore'. Did you mean 'core'?"),
        (("--set", "num_trials"), "`--set` must be KEY=VALUE, but got 'num_trials'"),
        (("--set", "evaluation.num_steps=0"), "`evaluation.num_steps` must be greater than or equal to 1, but got 0"),
        (
            ("--set", "evaluation.num_steps=1001"),
            "`evaluation.num_steps` must be at most the 1000 steps of the base's noise",
        ),
        (
            ("--set", "evaluation.guidance_scale=1e308"),
            "`evaluation.guidance_scale` must be less than or equal to 1000",
        ),
        (("--set", "data.path=/films"), "`data.path` must stand beside `data.source` 'prepared'"),
        (("--set", "data.source=prepared"), "`data.path` must name a prepared data set"),
        (("--set", "data.source=prepared", "--set", "data.path=/nowhere"), "`path` must be a prepared data set"),
        (("--set", "base=/nowhere/sd"), "`base` must be mini, sd15, a hub id (owner/name) or an existing folder"),
        (("--set", "data.resolution_px=128"), "`data` must have films of 64 px for base 'mini', but got 128 px"),
        (
            ("--set", "data.conditions=[Edema,Fracture]", *TINY),
            "`data.conditions` must be a known name, but got 'Fracture'",
        ),
        (("--set", "evaluation.extractor_weights=/nowhere"), "`mini` must have a config.json beside"),
        (("--set", "evaluation.extractor=xrv", "--set", "evaluation.extractor_weights=/nowhere.pt"), "nowhere.pt"),
        (("--config", "/nowhere.yaml"), "`--config` must name a readable file"),
        (
            ("--prior", "/nowhere"),
            "`--prior` must be a readable run directory, but got '/nowhere': it has no config.json",
        ),
    ],
)
def test_wrong_input_is_refused_and_leaves_nothing(tmp_path: Path, options: tuple[str, ...], answer: str) -> None:
    assert answer in refused(invoke("--out", str(tmp_path / "run"), *options))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_a_base_of_another_resolution_is_refused(tmp_path: Path, dataset: PreparedDataset) -> None:
    base = tmp_path / "base"
    shutil.copytree(MINI_FOLDER, base)
    config = json.loads((base / "unet" / "config.json").read_text())
    (base / "unet" / "config.json").write_text(json.dumps({**config, "sample_size": 2 * config["sample_size"]}))
    options = ("--set", f"base={base}", "--set", "data.source=prepared", "--set", f"data.path={dataset.folder}")
    said = refused(invoke("--out", str(tmp_path / "run"), *options))
    assert "`data` must have films of 128 px" in said and "but got 64 px. Prepare them with" in said
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
def test_a_condition_without_films_is_refused(tmp_path: Path, dataset: PreparedDataset) -> None:
    folder = tmp_path / "prepared"
    shutil.copytree(dataset.folder, folder)
    card = json.loads((folder / "dataset.json").read_text())
    (folder / "dataset.json").write_text(json.dumps({**card, "conditions": [*card["conditions"], "Fracture"]}))
    options = ("--set", "data.source=prepared", "--set", f"data.path={folder}", "--set", "data.conditions=[Fracture]")
    assert "at least 2 held-out films each, but got 0 of 'Fracture'" in refused(
        invoke("--out", str(tmp_path / "run"), *options)
    )
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
def test_what_was_refused_may_be_mended_in_the_same_folder(tmp_path: Path) -> None:
    """The films were drawn before they were found too few; they are not in the way of the next attempt."""
    options = ("--set", "data.num_patients=36", "--set", "data.conditions=[Cardiomegaly]")
    for _ in range(2):
        said = refused(invoke("--out", str(tmp_path / "run"), *options))
        assert "at least 2 held-out films each, but got 1 of 'Cardiomegaly'" in said
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--resume", "{tmp}"), "`--resume` must be a run directory, but got"),
        (("--resume", "{tmp}", "--out", "elsewhere"), "`--resume` must stand without --out, but got both"),
        (("--resume", "{tmp}", "--preset", "demo"), "`--resume` must stand without --preset, but got both"),
    ],
)
def test_resume_needs_a_run_and_nothing_that_says_otherwise(
    tmp_path: Path, options: tuple[str, ...], said: str
) -> None:
    assert said in refused(invoke(*(option.format(tmp=tmp_path) for option in options)))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_a_folder_in_use_is_refused_before_ray_and_torch_are_imported(tmp_path: Path) -> None:
    script = (
        "import sys; from pathlib import Path; from sweep.records.owner import owned; from sweep import run\n"
        "with owned(Path(sys.argv[1])):\n"
        "    (Path(sys.argv[1]) / 'mine').touch()\n"
        "    from typer.testing import CliRunner; import typer; app = typer.Typer(); app.command()(run.main)\n"
        "    said = CliRunner().invoke(app, ['--out', sys.argv[1]])\n"
        "print(said.exit_code, 'writes to' in said.stderr, {'ray', 'torch'} & sys.modules.keys())\n"
    )
    command = [sys.executable, "-c", script, str(tmp_path)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300, check=True)
    assert done.stdout == "1 True set()\n"


def test_an_address_without_a_ray_is_named_before_torch_is_imported_and_films_are_drawn(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "sweep.engine", None)  # which imports torch: no way leads past it
    for name, value in (("RAY_ADDRESS", "127.0.0.1:1"), ("RAY_ADDRESS", "ray://127.0.0.1:1")):
        monkeypatch.setenv(name, value)
        said = refused(invoke("--out", str(tmp_path / "runs" / "run")))
        assert f"`{name}` must be" in said and f"but got {value}" in said.replace("'", "")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_a_dry_run_prints_the_configuration_and_the_plan_and_makes_nothing(tmp_path: Path) -> None:
    out = tmp_path / "run"
    fewer = ("--set", "training.num_epochs=2", "--set", "search.strategies=[bitfit]")
    result = invoke("--dry-run", "--out", str(out), "--num-trials", "7", *fewer)
    assert result.exit_code == 0
    assert "Trials      7 by front" in result.stderr and "Operations" in result.stderr
    config = json.loads(result.stdout)
    assert (config["preset"], config["search"]["num_trials"], config["training"]["num_epochs"]) == ("demo", 7, 2)
    assert not out.exists()


@pytest.mark.parametrize(
    ("concurrent_trials", "num_trials", "told"),
    [
        (1, 3, "Trials waited 30 s for evaluations: 30% of 100 s."),
        (2, 3, "Trials waited 30 s for evaluations: 15% of 100 s, 2 trials at once."),
        (4, 3, "Trials waited 30 s for evaluations: 10% of 100 s, 3 trials at once."),
    ],
)
def test_waiting_is_a_share_of_the_places_that_trials_had(concurrent_trials: int, num_trials: int, told: str) -> None:
    """Of places that no trial could take none waited."""
    outcome = Outcome(
        front=Front(objectives=(), points=()),
        trials=pd.DataFrame(index=range(num_trials)),
        baseline={},
        num_cuts=0,
        wall_s=100.0,
        evaluation_s=30.0,
        ui_command="",
        lacking=(),
    )
    assert run.evaluation_share(outcome, concurrent_trials) == told


@pytest.fixture
def small_files() -> Iterator[None]:
    """Files that cannot grow beyond 100 kB, as on a disk that is full."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, limits[1]))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, limits)


@pytest.mark.slow
def test_a_full_disk_is_told_and_nothing_half_written_stays(small_files: None, tmp_path: Path) -> None:
    assert "too large" in refused(invoke("--out", str(tmp_path / "run"), *TINY))
    assert list(tmp_path.iterdir()) == []


def wait_for_completed(process: subprocess.Popen[str], table: Path, number: int) -> None:
    for _ in range(3000):
        assert process.poll() is None, process.communicate()
        if table.is_file() and (pd.read_parquet(table)["status"] == "completed").sum() >= number:
            return
        time.sleep(0.1)
    pytest.fail("no trial completed")


def wait_for_training(process: subprocess.Popen[str], out: Path) -> None:
    """Until a trial trains that has not completed."""
    for _ in range(15000):
        assert process.poll() is None, process.communicate()
        training = {mark.parent.name for mark in out.glob(f"trials/*/{IN_TRAINING}")}
        if training - set(pd.read_parquet(out / "trials.parquet").query("status == 'completed'")["trial_id"]):
            return
        time.sleep(0.02)
    pytest.fail("no trial trains")


def test_an_interrupted_sweep_keeps_what_finished(ray_cluster: None, ray_address: str, tmp_path: Path) -> None:
    """The command in a process of its own, on a cluster that is there; what it held of the cluster is free afterwards.

    A trial that trains keeps where it is, wherever that is (test_trial.py), though it is no time for a checkpoint.

    SIGTERM takes the way of Ctrl+C and SIGHUP (test_interrupts.py); Ray puts a handler of its own in place for it alone.
    """
    out = tmp_path / "run"
    command = [*warm_python.command(), "-m", "sweep.run", "--out", str(out), "--num-trials", "500", *TINY]
    environment = {**os.environ, "RAY_ADDRESS": ray_address}
    settings = ("training.num_epochs=3", "search.strategies=[bitfit]", "compute.concurrent_trials=1")
    with subprocess.Popen(
        [*command, *(text for setting in settings for text in ("--set", setting))],
        cwd=ROOT,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            wait_for_completed(process, out / "trials.parquet", 1)
            wait_for_training(process, out)
            process.send_signal(signal.SIGTERM)
            said, errors = process.communicate(timeout=300)
        finally:
            process.kill()
    assert process.returncode == 143, errors
    assert f"Go on with: python -m sweep.run --resume {out}" in errors
    trials = pd.read_parquet(out / "trials.parquet")
    completed = trials[trials["status"] == "completed"]
    under_way, was_late = (
        set(trials["trial_id"]) - set(completed["trial_id"]),
        list(out.glob(f"trials/*/{IN_TRAINING}")),
    )
    assert len(under_way) <= 1
    if under_way and not was_late and "Trials that train keep where they are" in said + errors:
        # On a busy machine it may end between the look and the signal, the next not train yet, or 8 s be too few.
        kept = read_checkpoint(out / "trials" / under_way.pop())
        assert kept is not None and kept.facts["step"] > 0, errors
    page = (out / "report.html").read_text()
    assert all(trial_id in page for trial_id in completed["trial_id"])
    assert 1 <= len(completed) < 500 and set(trials["status"]) <= {"completed", "running"}
    front = json.loads((out / "pareto.json").read_text())
    assert front["points"] and {point["trial_id"] for point in front["points"]} <= set(completed["trial_id"])
    assert len(pd.read_parquet(out / "results.parquet")) >= len(completed)

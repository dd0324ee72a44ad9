"""How a sweep went, read back from a real MLflow store: the report's numbers, and none twice."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from mlflow import MlflowClient
from PIL import Image

from analysis.front.history import hypervolume_history
from analysis.front.pareto import Front, FrontPoint, Objective
from analysis.report.course import attainments
from analysis.run_folder import CONFIG, COURSE, PARETO, RESULTS, TRIALS, RunFolder
from analysis.studies.importance import importances
from sweep.presets import demo
from sweep.records.tracking import Tracker, tracker
from sweep.records.tracking.course import HOURS, HYPERVOLUME, course_of
from sweep.trials.ends import TrialEnd

pytestmark = pytest.mark.slow

OBJECTIVES = (Objective("fid_mini", "min"), Objective("vendi_mini", "max"))
NO_FRONT = Front(objectives=OBJECTIVES, points=())


def sweep_folder(out: Path, num_trials: int) -> RunFolder:
    """The tables of a sweep of whose trials one in four was stopped; those of more trials begin alike."""
    rng = np.random.default_rng(0)
    values = rng.random((64, 3))[:num_trials]
    names = [f"t{number}" for number in range(num_trials)]
    trials = pd.DataFrame(
        {
            "trial_id": names,
            "strategy": [("lora", "unet")[number % 2] for number in range(num_trials)],
            "status": ["stopped" if number % 4 == 3 else "completed" for number in range(num_trials)],
            "fid_mini": 50 - 20 * values[:, 0],
            "vendi_mini": 1 + values[:, 1],
            "param/lr": 1e-4 * 10 ** values[:, 2],
            "param/batch_size": 16,
        }
    )
    results = pd.DataFrame(
        [
            {"trial_id": name, "epoch": epoch, "epoch_s": 360.0, "loss": 1 / (epoch + 1), "early_fid_mini": early}
            for name in names
            for epoch, early in ((0, np.nan), (1, 60.0), (2, np.nan))
        ]
    )
    out.mkdir(parents=True, exist_ok=True)
    trials.to_parquet(out / TRIALS)
    results.to_parquet(out / RESULTS)
    NO_FRONT.write(out / PARETO)
    (out / CONFIG).write_text(json.dumps(demo().model_dump(mode="json")))
    return RunFolder.open(out)


def tracked(out: Path) -> tuple[MlflowClient, str]:
    """Track how it went and end; the client, and MLflow's id of the parent run."""
    told = Tracker.start(demo(), out)
    assert told.course() is None
    assert told.finish(NO_FRONT) is None
    client = MlflowClient(f"sqlite:///{out / 'mlflow.db'}")
    (run,) = client.search_runs([each.experiment_id for each in client.search_experiments()], "tags.sweep = 'true'")
    return client, run.info.run_id


def series(client: MlflowClient, run_id: str, name: str) -> list[tuple[int, float]]:
    return sorted((point.step, point.value) for point in client.get_metric_history(run_id, name))


def test_it_is_what_the_report_says_once_and_a_sweep_that_goes_on_keeps_its_unit(tmp_path: Path) -> None:
    out = tmp_path / "run"
    first = sweep_folder(out, 20)
    client, run_id = tracked(out)
    history = hypervolume_history(first.trials, first.results, OBJECTIVES)
    assert len(history.volumes) == 15 and history.volumes[0] < history.volumes[-1] == 1.0
    before = series(client, run_id, HYPERVOLUME)
    assert before == list(enumerate(history.volumes.tolist(), start=1))
    assert series(client, run_id, HOURS) == list(enumerate(history.hours.tolist(), start=1))
    require_tables(client, run_id, first)

    tracked(out)
    assert series(client, run_id, HYPERVOLUME) == before, "the same again changes nothing"
    sweep_folder(out, 32)
    tracked(out)
    after = series(client, run_id, HYPERVOLUME)
    assert after[:15] == before and [step for step, _ in after] == list(range(1, 25))
    assert after[-1][1] > 1.0 and np.diff([value for _, value in after]).min() >= 0
    assert len(table(client, run_id, "attainment")["data"]) == 2

    third = sweep_folder(out, 52)
    tracked(out)
    last = series(client, run_id, HYPERVOLUME)
    assert last[:24] == after and [step for step, _ in last] == list(range(1, 40))
    assert np.diff([value for _, value in last]).min() >= 0, "the unit of the second end would let it fall"
    whole = hypervolume_history(third.trials, third.results, OBJECTIVES, as_of=15)
    np.testing.assert_allclose([value for _, value in last], whole.volumes, rtol=1e-12)


def require_tables(client: MlflowClient, run_id: str, run: RunFolder) -> None:
    """Pictures that can be read, and tables that MLflow's pages show, of the numbers of the report."""
    assert {item.path for item in client.list_artifacts(run_id, "course")} == {
        f"course/{name}" for name in ("hypervolume.png", "learning_curves.png", "attainment.json", "importance.json")
    }
    for name in ("hypervolume", "learning_curves"):
        with Image.open(client.download_artifacts(run_id, f"course/{name}.png")) as picture:
            assert picture.format == "PNG" and np.ptp(np.asarray(picture.convert("L"))) > 100
    shown = [each["path"] for each in json.loads(client.get_run(run_id).data.tags["mlflow.loggedArtifacts"])]
    assert shown == ["pareto_table.json", "course/attainment.json", "course/importance.json"]
    attained = table(client, run_id, "attainment")
    assert attained["columns"][:4] == ["strategy", "completed", "stopped", "best fid_mini"]
    expected = [
        [row.strategy, row.completed, row.stopped, *row.best, row.share] for row in attainments(run.trials, OBJECTIVES)
    ]
    assert [row[0] for row in attained["data"]] == [row[0] for row in expected]
    np.testing.assert_allclose([row[1:] for row in attained["data"]], [row[1:] for row in expected], rtol=1e-9)
    shares = {(row[0], row[1]): row[2] for row in table(client, run_id, "importance")["data"]}
    by_objective = importances(run.trials, OBJECTIVES)
    assert shares == pytest.approx(
        {(name, of): share for name, each in by_objective.items() for of, share in each.items()}
    )
    assert {of for _, of in shares} == {"strategy", "lr"}


def table(client: MlflowClient, run_id: str, name: str) -> Any:
    return json.loads(Path(client.download_artifacts(run_id, f"course/{name}.json")).read_text())


@pytest.mark.parametrize(
    "changed",
    [
        lambda run: replace(run, front=replace(run.front, objectives=OBJECTIVES[:1])),
        lambda run: replace(run, trials=run.trials.assign(status="failed")),
    ],
)
def test_of_one_objective_and_of_failures_alone_nothing_is_said(
    tmp_path: Path, changed: Callable[[RunFolder], RunFolder]
) -> None:
    run = sweep_folder(tmp_path, 12)
    assert course_of(changed(run)) is None and not (tmp_path / COURSE).exists()
    assert course_of(run) is not None


def test_a_course_that_cannot_be_drawn_says_so_and_costs_neither_front_nor_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sweep_folder(tmp_path, 12)
    threads = []

    def fault(run: RunFolder) -> None:
        threads.append(threading.current_thread())
        raise ValueError("no such font")

    monkeypatch.setattr(tracker, "course_of", fault)
    told = Tracker.start(demo(), tmp_path)
    told.trial("t0", "lora", {"rank": 2})
    told.end("t0", TrialEnd.completed())
    lacking = told.course()
    assert lacking is not None and "ValueError: no such font" in lacking and "refused" not in lacking
    assert threads == [threading.main_thread()], "what `finish` gives a server is not spent on pictures"
    knee = FrontPoint(trial_id="t0", strategy="lora", values={"fid_mini": 1.0}, params={}, knee=True)
    assert told.finish(replace(NO_FRONT, points=(knee,))) is None
    client = MlflowClient(f"sqlite:///{tmp_path / 'mlflow.db'}")
    trial, parent = sorted(client.search_runs(["1"]), key=lambda run: "sweep" in run.data.tags)
    assert (trial.data.tags["pareto"], trial.data.tags["knee"]) == ("true", "true")
    assert parent.info.status == "FINISHED" and HYPERVOLUME not in parent.data.metrics

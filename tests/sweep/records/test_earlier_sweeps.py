"""Earlier sweeps are read once, compared by all that their results depend on, and kept in the new sweep's log."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from analysis.run_folder import RunFolder
from sweep.config import ConfigError, SweepConfig
from sweep.loading import load_config
from sweep.records.earlier import Identity, read_earlier
from sweep.records.events import read_events
from sweep.records.journal import Journal, past_of
from sweep.records.provenance import collect_provenance
from sweep.trials.ends import TrialEnd
from sweep.trials.suggestions import Suggestion

pytestmark = pytest.mark.slow

SAME = Identity(data="data-hash", weights="weights-hash")
DYLORA = {"strategy": {"name": "dylora", "rank": 4, "alpha": 8}, "lr": 1e-3, "batch_size": 16}


def config(*settings: str) -> SweepConfig:
    return load_config("demo", None, settings)


def scores(fid: float, size: float) -> dict[str, float]:
    return {"fid_mini": fid, "fid_mini_se": 0.5, "vendi_mini": 2.0, "trainable_parameters": size, "epoch_s": 1.0}


def tell_trial(journal: Journal, number: int, final: dict[str, float], *, cut: dict[str, float] | None = None) -> None:
    name = f"t{number}"
    params = {"strategy": "dylora", "dylora/rank": 4, "dylora/lr": 1e-3 * (1 + number)}
    journal.on_start(Suggestion(trial_id=name, number=number, choice=DYLORA, params=params))
    journal.on_report(name, {"epoch": 0, "loss": 0.5, "final": True, **final})
    if cut is not None:
        journal.on_cut(f"{name}-rank1", name, DYLORA, {"epoch": 0, **cut})
        journal.on_end(f"{name}-rank1", TrialEnd.completed())
    journal.on_end(name, TrialEnd.completed())


def make_run(out: Path, *settings: str) -> Path:
    """Of four trials one failed, one is beaten, one is the best in the distance, and of one the cut is the smallest."""
    made = config(*settings)
    journal = Journal.open(out, made, collect_provenance(made, "data-hash", "weights-hash"))
    journal.on_baseline(scores(50.0, 0.0))
    tell_trial(journal, 0, scores(20.0, 90.0), cut=scores(30.0, 10.0))
    tell_trial(journal, 1, scores(25.0, 95.0))
    tell_trial(journal, 2, scores(10.0, 80.0))
    journal.on_start(Suggestion(trial_id="t3", number=3, choice=DYLORA))
    journal.on_end("t3", TrialEnd.failed("out of memory"))
    journal.finish()
    return out


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_run(tmp_path_factory.mktemp("made") / "run")


@pytest.fixture
def run(made: Path, tmp_path: Path) -> Path:
    """That run, to be spoilt or gone on with."""
    return Path(shutil.copytree(made, tmp_path / "run"))


def numbers(read: Any) -> list[int]:
    return [round(trial["params"]["dylora/lr"] / 1e-3) - 1 for trial in read.trials]


def test_of_a_sweep_of_the_same_data_and_evaluation_all_completed_trials_are_read(tmp_path: Path) -> None:
    """Seeds, limits, strategies and what changes no result may differ."""
    run = make_run(tmp_path / "run", "seed=3", "search.num_trials=4", "training.micro_batch=2")
    read = read_earlier(run, config(), SAME)
    assert read.differs == () and numbers(read) == [0, 1, 2] and read.trials[0]["choice"] == DYLORA
    assert read.trials[0]["metrics"] == scores(20.0, 90.0)
    assert "its 3 completed trials are observations" in read.told()


@pytest.mark.parametrize(
    ("settings", "identity", "differs"),
    [
        (("training.num_epochs=99",), SAME, ("training.num_epochs",)),
        (("evaluation.images_per_condition=5",), SAME, ("evaluation.images_per_condition",)),
        (("objectives=[fid,vendi]",), SAME, ("objectives",)),
        (("data.seed=4",), SAME, ()),  # the fingerprint says that they are the same
        (("data.seed=4",), Identity(weights="weights-hash"), ("data.seed",)),
        (("data.conditions=[Edema]",), SAME, ("data.conditions",)),
        ((), Identity(data="other", weights="weights-hash"), ("data",)),
        ((), Identity(data="data-hash", weights="other"), ("base",)),
    ],
)
def test_what_keeps_results_from_being_compared_is_named(
    made: Path, settings: tuple[str, ...], identity: Identity, differs: tuple[str, ...]
) -> None:
    assert read_earlier(made, config(*settings), identity).differs == differs


def test_of_another_sweep_the_front_is_read_each_training_once(made: Path) -> None:
    """The knee is a cut, of which the whole training is what can be proposed; then the best in the distance."""
    knee = RunFolder.open(made).front.knee
    assert knee is not None and knee.trial_id == "t0-rank1"
    read = read_earlier(made, config(), Identity(data="other"))
    assert numbers(read) == [0, 2] and all(trial["metrics"] == {} for trial in read.trials)


@pytest.mark.parametrize(
    ("spoil", "answer"),
    [
        (lambda run: (run / "events.log").unlink(), r"it has no events\.log"),
        (lambda run: (run / "config.json").write_text("{"), "must be a readable run directory"),
        (lambda run: (run / "config.json").write_text('{"colour": 1}'), "but got 'colour'"),
        (lambda run: (run / "provenance.json").write_text("[]"), "must be a readable run directory"),
        (lambda run: (run / "events.log").write_text("no log\n" * 9), "must be a readable run directory"),
    ],
)
def test_what_cannot_be_read_is_refused(run: Path, spoil: Any, answer: str) -> None:
    spoil(run)
    with pytest.raises(ConfigError, match=answer) as refused:
        read_earlier(run, config(), SAME)
    assert "`--prior`" in str(refused.value) and "run'" in str(refused.value)


def test_a_sweep_that_has_completed_nothing_is_refused(tmp_path: Path) -> None:
    Journal.open(tmp_path, config(), collect_provenance(config(), "data-hash", "weights-hash")).finish()
    with pytest.raises(ConfigError, match=r"must have completed a trial, but got .* has completed 0 of 10"):
        read_earlier(tmp_path, config(), SAME)


def test_what_was_read_is_in_the_log_and_in_no_table(made: Path, tmp_path: Path) -> None:
    other = make_run(tmp_path / "other", "training.num_epochs=99")
    read = [read_earlier(run, config(), SAME) for run in (made, other)]
    out, provenance = tmp_path / "new", collect_provenance(config(), "data-hash", "weights-hash")
    journal = Journal.open(out, config(), provenance)
    for sweep in read:
        journal.on_earlier(sweep)
    assert journal.finish().points == () and pd.read_parquet(out / "trials.parquet").empty
    heard = past_of(out, config().reported_objectives()).earlier
    assert [item.told() for item in heard] == [item.told() for item in read] == RunFolder.open(out).earlier()
    assert [list(item.trials) for item in heard] == [json.loads(json.dumps(list(item.trials))) for item in read]
    again = Journal.open(out, config(), provenance)
    assert list(again.past) == list(read_events(out / "events.log"))[:2]


def test_a_run_by_a_version_with_fewer_keys_goes_on(run: Path) -> None:
    provenance = collect_provenance(config(), "data-hash", "weights-hash")
    kept = json.loads((run / "config.json").read_text())
    del kept["search"]["prior"]
    (run / "config.json").write_text(json.dumps(kept))
    Journal.open(run, config(), provenance).finish()
    with pytest.raises(ConfigError, match=r"search\.prior was \[\] and is \['/runs/a'\]"):
        Journal.open(run, config().with_prior([Path("/runs/a")]), provenance)

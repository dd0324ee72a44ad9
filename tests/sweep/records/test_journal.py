"""The journal: what is on disk after each event."""

from __future__ import annotations

import json
import math
from functools import reduce
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from analysis.front.pareto import Front
from sweep.config import ConfigError, SweepConfig
from sweep.presets import demo
from sweep.records.journal import Journal
from sweep.records.provenance import collect_provenance
from sweep.records.tables import flat_choice
from sweep.trials.ends import TrialEnd
from sweep.trials.suggestions import Suggestion

LORA = {"strategy": {"name": "lora", "rank": 4, "alpha": 8}, "lr": 1e-3, "batch_size": 16}
DYLORA = {**LORA, "strategy": {"name": "dylora", "rank": 4, "alpha": 8}}
UNET = {"strategy": {"name": "unet"}, "lr": 1e-4, "batch_size": 32}


def scores(fid: float, vendi: float, size: int, epoch_s: float) -> dict[str, Any]:
    return {"fid_mini": fid, "vendi_mini": vendi, "trainable_parameters": size, "epoch_s": epoch_s}


def begin(out: Path) -> Journal:
    return Journal.open(out, demo(), collect_provenance(demo(), "data-hash", "weights-hash"))


def suggestion(trial_id: str, choice: dict[str, Any]) -> Suggestion:
    """The first is called a, the second b."""
    return Suggestion(trial_id=trial_id, number=ord(trial_id) - ord("a"), choice=choice)


def run_trial(journal: Journal, trial_id: str, choice: dict[str, Any], final: dict[str, Any]) -> None:
    journal.on_start(suggestion(trial_id, choice))
    journal.on_report(trial_id, {"epoch": 0, "loss": 0.5})
    journal.on_report(trial_id, {"epoch": 1, "loss": 0.25, "final": True, **final})
    journal.on_end(trial_id, TrialEnd.completed())


@pytest.fixture
def journal(tmp_path: Path) -> Journal:
    """Three trials: a small good one, one that it dominates, and one that failed after its first epoch."""
    journal = begin(tmp_path / "run")
    run_trial(journal, "a", LORA, scores(1.0, 3.0, 100, 1.0))
    run_trial(journal, "b", UNET, scores(2.0, 2.0, 900, 2.0))
    journal.on_start(suggestion("c", UNET))
    journal.on_report("c", {"epoch": 0, "loss": math.nan})
    journal.on_end("c", TrialEnd.failed("`loss` must be finite, but got nan"))
    return journal


def test_config_and_provenance_come_first(tmp_path: Path) -> None:
    out = tmp_path / "run"
    begin(out)
    assert SweepConfig.model_validate_json((out / "config.json").read_text()) == demo()
    provenance = json.loads((out / "provenance.json").read_text())
    assert provenance["data_fingerprint"] == "data-hash"
    assert provenance["base"] == {"name": "mini", "weights_hash": "weights-hash"}
    assert provenance["seed"] == demo().seed
    assert {"torch", "ray", "optuna"} <= set(provenance["packages"])
    assert provenance["command"] and provenance["python"]


def test_one_row_a_trial(journal: Journal) -> None:
    rows = pd.read_parquet(journal.out / "trials.parquet").set_index("trial_id")
    assert rows["status"].to_dict() == {"a": "completed", "b": "completed", "c": "failed"}
    assert rows["number"].to_dict() == {"a": 0, "b": 1, "c": 2}
    assert rows.loc["a", ["strategy", "param/rank", "param/lr", "fid_mini", "loss"]].tolist() == [
        "lora",
        4,
        1e-3,
        1.0,
        0.25,
    ]
    assert np.isnan(rows.loc["b", "param/rank"])
    assert rows.loc["c", "reason"] == "`loss` must be finite, but got nan"
    assert rows["pareto"].to_dict() == rows["knee"].to_dict() == {"a": True, "b": False, "c": False}


def test_one_row_a_report(journal: Journal) -> None:
    rows = pd.read_parquet(journal.out / "results.parquet")
    assert rows[["trial_id", "epoch"]].values.tolist() == [["a", 0], ["a", 1], ["b", 0], ["b", 1], ["c", 0]]
    assert set(rows.columns) == {"trial_id", "epoch", "loss", "final", *scores(0, 0, 0, 0)}


def test_front_is_written_after_every_trial_and_returned_at_the_end(journal: Journal) -> None:
    assert [point.trial_id for point in Front.read(journal.out / "pareto.json").points] == ["a"]
    front = journal.finish()
    assert front == Front.read(journal.out / "pareto.json")
    assert front.knee is not None
    assert front.knee.params == {"rank": 4, "alpha": 8, "lr": 1e-3, "batch_size": 16}


def test_trials_that_have_not_ended_are_left_open(journal: Journal) -> None:
    journal.on_start(suggestion("d", LORA))
    journal.finish()
    last = pd.read_parquet(journal.out / "trials.parquet").iloc[-1]
    assert last["status"] == "running" and pd.isna(last["reason"])


def test_a_sweep_without_a_completed_trial_has_an_empty_front(tmp_path: Path) -> None:
    journal = begin(tmp_path)
    journal.on_start(suggestion("a", LORA))
    journal.on_end("a", TrialEnd.failed("out of memory"))
    assert journal.finish().points == ()
    assert begin(tmp_path / "none").finish().points == ()


def test_a_cut_is_a_completed_row_and_a_point_of_its_own(journal: Journal) -> None:
    journal.on_start(suggestion("d", DYLORA))
    final = scores(0.9, 3.1, 80, 1.5)
    journal.on_report("d", {"epoch": 1, "loss": 0.2, **final})
    cut = {**DYLORA, "strategy": {"name": "dylora", "rank": 1, "alpha": 8}}
    journal.on_cut("d-rank1", "d", cut, {"epoch": 1, **final, "trainable_parameters": 20})
    journal.on_end("d-rank1", TrialEnd.completed())
    journal.on_end("d", TrialEnd.completed())
    run_trial(journal, "e", UNET, scores(3.0, 1.0, 900, 9.0))
    journal.finish()
    rows = pd.read_parquet(journal.out / "trials.parquet").set_index("trial_id")
    assert rows["cut_of"].dropna().to_dict() == {"d-rank1": "d"}
    columns = ["number", "status", "strategy", "param/rank", "param/lr", "trainable_parameters", "epoch_s"]
    assert rows.loc["d", columns].tolist() == [3, "completed", "dylora", 4, 1e-3, 80, 1.5]
    assert rows.loc["d-rank1", columns].tolist() == [3, "completed", "dylora", 1, 1e-3, 20, 1.5]
    assert rows.loc["e", "number"] == 4
    front = Front.read(journal.out / "pareto.json")
    assert {point.trial_id: point.params["rank"] for point in front.points} == {"a": 4, "d-rank1": 1}


def test_several_values_of_a_hyperparameter_are_one_cell(journal: Journal) -> None:
    several = {"name": "dylora", "rank": 8, "evaluated_ranks": [2, 4]}
    run_trial(journal, "d", {**DYLORA, "strategy": several}, scores(0.1, 9.0, 1, 0.1))
    assert journal.finish().points[0].params["evaluated_ranks"] == "2, 4"
    assert pd.read_parquet(journal.out / "trials.parquet")["param/evaluated_ranks"].iloc[-1] == "2, 4"


def demo_with(key: str, value: Any) -> SweepConfig:
    values: dict[str, Any] = demo().model_dump()
    *sections, name = key.split(".")
    reduce(lambda mapping, section: mapping[section], sections, values)[name] = value
    return SweepConfig.model_validate(values)


def provenance_with(**changes: Any) -> dict[str, Any]:
    return {**collect_provenance(demo(), "data-hash", "weights-hash"), **changes}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("config", "provenance", "said"),
    [
        (
            demo_with("training.num_epochs", 3),
            provenance_with(),
            f"training.num_epochs was {demo().training.num_epochs} and is 3",
        ),
        (demo_with("seed", 9), provenance_with(), "seed was 0 and is 9"),
        (demo_with("search.strategies", ["lora"]), provenance_with(), "search.strategies was "),
        (demo(), provenance_with(data_fingerprint="other"), "the data set has changed since"),
        (demo(), provenance_with(base={"name": "mini", "weights_hash": "other"}), "the base model has changed since"),
    ],
)
def test_a_run_of_another_sweep_is_refused_and_left_alone(
    journal: Journal, config: SweepConfig, provenance: dict[str, Any], said: str
) -> None:
    before = {file: file.read_bytes() for file in journal.out.iterdir()}
    with pytest.raises(ConfigError, match=r"`run directory` must hold no run, or one of the same sweep") as refused:
        Journal.open(journal.out, config, provenance)
    assert said in str(refused.value)
    assert {file: file.read_bytes() for file in journal.out.iterdir()} == before


@pytest.mark.slow
@pytest.mark.parametrize("grown", [("search.num_trials", 40), ("compute.concurrent_trials", 2)])
def test_a_run_goes_on_where_it_was_and_may_grow(journal: Journal, grown: tuple[str, Any]) -> None:
    journal.on_start(suggestion("d", LORA))
    journal.on_report("d", {"epoch": 0, "loss": 0.4})
    journal.on_retry("d", "its node died")
    before = journal.tables
    config = demo_with(*grown)
    again = Journal.open(journal.out, config, provenance_with(git_commit="another"))
    pd.testing.assert_frame_equal(again.tables.trials(), before.trials())
    pd.testing.assert_frame_equal(again.tables.results(), before.results())
    assert again.tables.running() == ["d"] and again.tables.num_ended() == 3 and again.losses() == {"d": 1}
    assert SweepConfig.model_validate_json((journal.out / "config.json").read_text()) == config
    assert Journal.open(journal.out, config, provenance_with()).commit() == "another"


def test_an_epoch_that_is_reported_anew_takes_the_place_of_the_old(tmp_path: Path) -> None:
    """A trial that goes on from its checkpoint after epoch 0 has the numbers of a trial that was never lost."""
    straight, broken = begin(tmp_path / "straight"), begin(tmp_path / "broken")
    reports = [{"epoch": 0, "loss": 0.5}, {"epoch": 1, "loss": 0.4}, {"epoch": 2, "loss": 0.3, **scores(1, 2, 3, 4)}]
    for journal in (straight, broken):
        journal.on_start(suggestion("a", LORA))
        journal.on_report("a", reports[0])
    broken.on_report("a", {"epoch": 1, "loss": 9.9, "early_fid": 1.0})
    broken.on_report("a", {"epoch": 2, "loss": 9.9, "other": 1.0})
    for journal in (straight, broken):
        for report in reports[1:]:
            journal.on_report("a", report)
        journal.on_end("a", TrialEnd.completed())
        journal.finish()
    for name in ("trials.parquet", "results.parquet"):
        tables = [pd.read_parquet(journal.out / name) for journal in (straight, broken)]
        pd.testing.assert_frame_equal(*tables)


def test_a_choice_made_flat() -> None:
    assert flat_choice(LORA) == {"strategy": "lora", "rank": 4, "alpha": 8, "lr": 1e-3, "batch_size": 16}


def test_a_stopped_trial_is_a_row_with_its_rung_and_never_a_point(journal: Journal) -> None:
    journal.on_start(suggestion("d", LORA))
    journal.on_report("d", {"epoch": 0, "loss": 0.1, "final": False, **scores(0.1, 9.0, 1, 0.1)})
    journal.on_end("d", TrialEnd.stopped("it gains too little", rung=1))
    assert [point.trial_id for point in journal.finish().points] == ["a"]
    rows = pd.read_parquet(journal.out / "trials.parquet").set_index("trial_id")
    assert rows.loc["d", ["status", "reason", "rung"]].tolist() == ["stopped", "it gains too little", 1]
    assert rows.loc["d", "fid_mini"] == 0.1 and not rows.loc["d", "pareto"]
    assert rows["rung"].isna().to_dict() == {"a": True, "b": True, "c": True, "d": False}


def test_waiting_for_evaluations_is_added_up_over_trials_rungs_and_cuts(tmp_path: Path) -> None:
    journal = Journal.open(tmp_path / "run", SweepConfig(), {})
    journal.on_start(suggestion("a", LORA))
    journal.on_report("a", {"epoch": 0, "evaluation_s": 1.0})
    journal.on_report("a", {"epoch": 1})
    journal.on_report("a", {"epoch": 2, "evaluation_s": 4.0})
    journal.on_cut("a-rank1", "a", LORA, {"epoch": 2, "evaluation_s": 16.0})
    assert journal.tables.evaluation_s() == 21.0


def test_trials_stand_in_the_order_of_their_suggestions_whichever_started_first(tmp_path: Path) -> None:
    journal = begin(tmp_path)
    for trial_id in "bca":
        journal.on_start(suggestion(trial_id, LORA))
    journal.finish()
    assert pd.read_parquet(tmp_path / "trials.parquet")["trial_id"].tolist() == ["a", "b", "c"]


def test_a_run_without_its_events_is_not_begun_anew_over_itself(journal: Journal) -> None:
    (journal.out / "events.log").unlink()
    before = {file: file.read_bytes() for file in journal.out.iterdir()}
    with pytest.raises(ConfigError, match=r"`run directory` must hold its events\.log to go on, but got"):
        begin(journal.out)
    assert {file: file.read_bytes() for file in journal.out.iterdir()} == before


def test_scores_of_the_base_model_are_written_again_where_they_are_missing(journal: Journal) -> None:
    journal.on_baseline({"fid_mini": 9.0})
    (journal.out / "baseline.json").unlink()
    begin(journal.out).finish()
    assert json.loads((journal.out / "baseline.json").read_text()) == {"fid_mini": 9.0}


def test_the_front_knows_how_sure_it_is_from_what_evaluations_left(tmp_path: Path) -> None:
    """Two trials and the base with a FID of 9, each with two resamples; the third trial left none."""
    journal = Journal.open(tmp_path, SweepConfig(objectives=("fid", "trainable_parameters")), {})
    journal.on_baseline({"fid_mini": 9.0})
    pd.DataFrame({"fid_mini": [8.9, 9.1]}).to_parquet(tmp_path / "baseline-resamples.parquet")
    for number, (trial_id, fid) in enumerate((("a", 5.0), ("b", 5.1), ("c", 5.2))):
        journal.on_start(Suggestion(trial_id=trial_id, number=number, choice=LORA))
        journal.on_report(trial_id, {"epoch": 0, "fid_mini": fid, "trainable_parameters": 7})
        if trial_id != "c":
            (tmp_path / "trials" / trial_id).mkdir(parents=True)
            resamples = pd.DataFrame({"fid_mini": [fid - 0.2, fid + 0.2]})
            resamples.to_parquet(tmp_path / "trials" / trial_id / "samples-resamples.parquet")
        journal.on_end(trial_id, TrialEnd.completed())
        front = json.loads((tmp_path / "pareto.json").read_text())
        assert set(front["probabilities"]) == {"a": {"a"}, "b": {"a", "b"}, "c": set()}[trial_id]
        assert front["base"] == {"fid_mini": 9.0, "trainable_parameters": 0.0} and front["knee"] == "a"
    journal.finish()


def test_the_tables_are_written_as_often_as_keeps_a_trial_cheap(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A write costs as much as there are trials: after n of them, a tenth of n pass until the next. All count at the end."""
    journal, written, clock = Journal.open(tmp_path, SweepConfig(), {}), list[int](), [0.0]
    monkeypatch.setattr("sweep.records.journal.EACH_OF_FIRST", 10)
    monkeypatch.setattr("sweep.records.journal.time.monotonic", lambda: clock[0])
    monkeypatch.setattr("sweep.records.journal._write_parquet", lambda path, table: written.append(len(table)))
    monkeypatch.setattr("os.fsync", lambda handle: None)
    for number in range(31):
        clock[0] += 11.0 if number == 22 else 0.0
        journal.on_start(Suggestion(trial_id=str(number), number=number, choice=LORA))
        journal.on_end(str(number), TrialEnd.failed("nothing was done"))
    trials = written[::2]
    assert trials == [*range(1, 21), 22, 23, 24, 26, 28, 30]
    journal.finish()
    assert written[-2] == 31

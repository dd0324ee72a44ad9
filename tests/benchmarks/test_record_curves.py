"""A small recording: made, interrupted, gone on with, merged and read."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from dataclasses import replace
from itertools import islice
from pathlib import Path

import pyarrow.parquet as parquet
import pytest

from benchmarks.record_curves import make_missing, recording_of, score_baseline
from benchmarks.recordings import CARD, TABLE, read_recording
from benchmarks.recordings.merging import COLUMNS, merge
from benchmarks.recordings.plot import draw
from benchmarks.recordings.settings import BASELINE, SETTINGS, Recording
from benchmarks.recordings.training import CurveScorer, evaluation_of, prepared, record, scorer_of, spec_of
from sweep.scoring.scorer import AdapterScorer
from trainables.datasets.base import ImageTextSample
from trainables.datasets.phantom import PhantomSource
from trainables.datasets.writing import write_dataset
from trainables.trial import fine_tune

pytestmark = pytest.mark.slow
PROVENANCE = {
    "git_commit": "abc",
    "python": "3",
    "platform": "p",
    "cpu": "c",
    "data_fingerprint": "d",
    "packages": {"torch": "2"},
    "base": {"name": "mini"},
}
LOW, FULL = 8, 10


class Unscored:
    """An evaluator that scores nothing."""

    def evaluate(self, adapter: Path, share_done: float) -> dict[str, float]:
        """Nothing."""
        return {}


class Interrupted(BaseException):
    """What stands for a kill in the middle of a training."""


class FewToTrainOn(PhantomSource):
    """A phantom with enough films to score by, of which 48 are trained on."""

    def samples(self, split: str) -> Iterator[ImageTextSample]:
        return islice(super().samples(split), 48 if split == "train" else None)


@pytest.fixture(scope="module")
def films(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Phantom films of a few patients."""
    folder = tmp_path_factory.mktemp("films") / "phantom"
    write_dataset(FewToTrainOn(num_patients=120, resolution_px=64, seed=5), folder)
    return folder


def recording_in(work: Path, films: Path) -> Recording:
    """Two short trainings, one of them with cuts."""
    settings = (
        "training.num_epochs=2",
        "evaluation.num_steps=1",
        f"evaluation.images_per_condition={FULL}",
        "data.conditions=[No Finding]",
        "search.hyperparameters={}",
    )
    return recording_of(
        films,
        work,
        work / "table",
        rungs=(1, 2),
        strategies=("bitfit", "dylora"),
        settings=settings,
        num_configs=2,
        num_repeated=0,
        low_images=LOW,
    )


@pytest.fixture(scope="module")
def scorer(films: Path, tmp_path_factory: pytest.TempPathFactory) -> CurveScorer:
    """Scores the trainings of all recordings here."""
    return scorer_of(recording_in(tmp_path_factory.mktemp("scorer"), films))


def go_on() -> None:
    """Nothing ends the work."""


@pytest.fixture(scope="module")
def made(films: Path, scorer: CurveScorer, tmp_path_factory: pytest.TempPathFactory) -> Recording:
    """A recording made in one go."""
    recording = recording_in(tmp_path_factory.mktemp("made"), films)
    recording.keep_settings({"data_fingerprint": prepared(recording).fingerprint})
    score_baseline(recording, scorer, PROVENANCE)
    make_missing(recording, scorer, PROVENANCE, go_on)
    return recording


@pytest.fixture(scope="module")
def table(made: Recording, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Its table and card, of which one training is a failed one."""
    failed = replace(made.trainings[0], number=7, choice={**made.trainings[0].choice, "lr": 1e30})
    work = tmp_path_factory.mktemp("parts")
    shutil.copytree(made.work, work, dirs_exist_ok=True)
    part = record(replace(made, work=work), failed, scorer_of(made), go_on)
    (work / "parts" / f"{failed.name}.json").write_text(json.dumps({**part, "provenance": PROVENANCE}))
    merge(work, work / "small")
    return work / "small"


def scores(recording: Recording) -> dict[str, list[tuple[float, ...]]]:
    """What does not depend on the clock, by training."""
    names = ("epoch", "images_per_condition", "fid_mini", "fid_mini_se", "kid_mini", "vendi_mini", "loss")
    files = {training.name: recording.part(training) for training in recording.trainings}
    parts = {name: json.loads(file.read_text()) for name, file in files.items() if file.exists()}
    return {name: [tuple(row[key] for key in names) for row in part["rows"]] for name, part in parts.items()}


def test_what_is_interrupted_is_made_again_and_what_is_done_is_not_touched(
    made: Recording, films: Path, scorer: CurveScorer, tmp_path: Path
) -> None:
    recording, epochs = recording_in(tmp_path, films), iter(range(100))

    def interrupt() -> None:
        if next(epochs) == 2:  # after the first epoch of the second training
            raise Interrupted

    every_epoch = recording.config.training.model_copy(update={"checkpoint_every_s": 0})
    keeping = replace(recording, config=recording.config.model_copy(update={"training": every_epoch}))
    with pytest.raises(Interrupted):
        make_missing(keeping, scorer, PROVENANCE, interrupt)
    first, second = recording.trainings
    assert [training.name for training in recording.done()] == [first.name]
    before = recording.part(first).stat()
    make_missing(recording, scorer, PROVENANCE, go_on)
    assert recording.part(first).stat() == before
    assert scores(recording) == scores(made) and scores(made)[second.name]
    assert not list((tmp_path / "trials").iterdir())


@pytest.fixture
def half(made: Recording, tmp_path: Path) -> Recording:
    """What another machine has of an unfinished recording: the table with the first training, and no parts."""
    work, to = tmp_path / "elsewhere", tmp_path / "table"
    for file in (made.part(made.trainings[0]), made.work / SETTINGS, made.work / BASELINE):
        copy = work / file.relative_to(made.work)
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(file, copy)
    merge(work, to)
    return replace(made, work=tmp_path / "here", to=to)


def test_the_table_alone_is_gone_on_from_and_what_it_holds_is_not_made_again(
    half: Recording, made: Recording, scorer: CurveScorer
) -> None:
    first, second = made.trainings
    before, base = parquet.read_table(half.to / TABLE).to_pylist(), read_recording(half.to).baseline
    half.keep_settings({})
    score_baseline(half, scorer, PROVENANCE)
    make_missing(half, scorer, PROVENANCE, go_on)
    assert [file.name for file in (half.work / "parts").iterdir()] == [f"{second.name}.json"]
    assert not (half.work / BASELINE).exists()
    merge(half.work, half.to)
    after = parquet.read_table(half.to / TABLE).to_pylist()
    assert after[: len(before)] == before and {row["config"] for row in after} == {first.config, second.config}
    assert scores(half)[second.name] == scores(made)[second.name]
    assert read_recording(half.to).baseline == base


def test_merging_again_changes_no_row(half: Recording) -> None:
    before = (half.to / TABLE).read_bytes()
    merge(half.work, half.to)
    assert (half.to / TABLE).read_bytes() == before


def test_a_table_of_other_settings_is_neither_gone_on_from_nor_merged_with(half: Recording, made: Recording) -> None:
    other = replace(half, low_images=3)
    with pytest.raises(ValueError, match=r"card\.json` must be of the same settings, but got other low_images"):
        other.keep_settings({})
    replace(other, to=half.work).keep_settings({})
    with pytest.raises(ValueError, match="but got other low_images"):
        merge(other.work, half.to)
    assert not list(other.work.glob("parts/*"))


def test_the_un_adapted_base_is_scored_with_few_and_with_all_films(made: Recording, table: Path) -> None:
    rows = json.loads((made.work / BASELINE).read_text())["rows"]
    read = read_recording(table).baseline
    assert [row["num_generated"] for row in rows] == list(read) == [LOW, FULL]
    assert [read[count]["fid_mini"].value for count in read] == [row["fid_mini"] for row in rows]
    assert all(min(score.se_generated, score.se) > 0 for scores in read.values() for score in scores.values())


def test_scores_are_the_engines_own_with_few_and_with_all_films(made: Recording, tmp_path: Path) -> None:
    """The engine's scorer, asked for as many films, is the second implementation."""
    spec = spec_of(made, made.trainings[0]).model_copy(update={"folder": tmp_path / "trial"})
    fine_tune(spec, Unscored(), lambda report: None)
    rows = [row for row in json.loads(made.part(made.trainings[0]).read_text())["rows"] if row["epoch"] == 2]
    for row, count in zip(rows, (LOW, FULL), strict=True):
        config = made.config.evaluation.model_copy(update={"images_per_condition": count})
        engine = AdapterScorer(replace(evaluation_of(made), config=config, cache_folder=tmp_path / f"cache{count}"))
        expected = engine.score(tmp_path / "trial" / "adapter", tmp_path / "samples.png")
        assert row["num_generated"] == expected["num_generated"] == count
        for name in ("fid_mini", "kid_mini", "vendi_mini"):
            assert row[name] == pytest.approx(expected[name], rel=1e-4)


def test_every_score_has_errors(made: Recording) -> None:
    for part in (json.loads(made.part(training).read_text()) for training in made.trainings):
        for row in part["rows"]:
            assert min(row["fid_mini_se"], row["fid_mini_se_generated"], row["kid_mini_se"]) > 0
            assert 0 < row["vendi_mini_se"] < row["vendi_mini"]


def test_the_reader_gives_what_the_parts_hold(made: Recording, table: Path) -> None:
    read = read_recording(table)
    assert (read.rungs, read.image_counts) == ([1, 2], [LOW, FULL])
    assert [curve.config for curve in read.trained()] == ["bitfit-00", "bitfit-07", "dylora-00"]
    dylora = json.loads(made.part(made.trainings[1]).read_text())
    curve = next(each for each in read.trained() if each.strategy == "dylora")
    for row in (row for row in dylora["rows"] if row["cut"] is None):
        point = curve.at(row["epoch"], row["images_per_condition"])
        assert point is not None and point.scores["fid_mini"].value == row["fid_mini"]
        assert point.scores["vendi_mini"].se == point.scores["vendi_mini"].se_generated == row["vendi_mini_se"]
        assert (point.training_cpu_s, point.gauge_cpu_s) == (row["training_cpu_s"], row["gauge_cpu_s"])
    assert curve.choice == made.trainings[1].choice and len(curve.losses) == 2
    rank = curve.choice["strategy"]["rank"]
    assert [each.cut for each in read.curves if each.cut] == [
        f"rank{2**power}" for power in range(rank.bit_length() - 1)
    ]
    assert all(len(each.points) == 2 for each in read.curves if each.cut)


def test_a_training_that_diverges_is_recorded_with_its_reason_and_without_figures(table: Path) -> None:
    read = read_recording(table)
    failed = next(curve for curve in read.trained() if curve.failure)
    assert failed.config == "bitfit-07" and not failed.points and "finite" in str(failed.failure)
    assert read.card["failures"] == {"bitfit-07-seed0": failed.failure}
    assert "bitfit-07" in (table / "card.md").read_text()


def test_every_column_is_explained(table: Path) -> None:
    columns = parquet.read_table(table / TABLE).column_names
    assert columns == list(COLUMNS) == list(json.loads((table / CARD).read_text())["columns"])


def test_an_early_rung_that_could_not_be_scored_is_missing_with_its_reason(made: Recording, tmp_path: Path) -> None:
    work = tmp_path / "work"
    shutil.copytree(made.work, work)
    file = work / made.part(made.trainings[0]).relative_to(made.work)
    part = json.loads(file.read_text())
    part["rows"] = [row for row in part["rows"] if row["epoch"] == 2]
    file.write_text(json.dumps({**part, "early_failures": {"1": "`films` must be finite"}}))
    merge(work, tmp_path / "table")
    curve = read_recording(tmp_path / "table").trained()[0]
    assert curve.early_failures == {1: "`films` must be finite"} and curve.at(1, LOW) is None
    assert curve.at(2, FULL) is not None


def test_a_table_that_was_changed_is_refused(table: Path, tmp_path: Path) -> None:
    shutil.copytree(table, tmp_path / "changed")
    content = parquet.read_table(table / TABLE)
    parquet.write_table(content.slice(1), tmp_path / "changed" / TABLE)
    with pytest.raises(ValueError, match=r"must be the card's"):
        read_recording(tmp_path / "changed")


@pytest.mark.parametrize(
    ("column", "value", "rule"),
    [
        ("fid_mini", float("nan"), "finite figures"),
        ("epoch", 5, "have points of"),
        ("training_cpu_s", 1e9, "cost more"),
    ],
)
def test_a_part_that_breaks_a_rule_is_refused(
    made: Recording, tmp_path: Path, column: str, value: float, rule: str
) -> None:
    work = tmp_path / "work"
    shutil.copytree(made.work, work)
    file = made.part(made.trainings[0]).relative_to(made.work)
    part = json.loads((work / file).read_text())
    part["rows"][0][column] = value
    (work / file).write_text(json.dumps(part))
    with pytest.raises(ValueError, match=rule):
        merge(work, tmp_path / "table")
    assert not (tmp_path / "table").exists()


def test_parts_of_other_settings_are_not_added_to(made: Recording) -> None:
    other = replace(made, low_images=3)
    with pytest.raises(ValueError, match="low_images"):
        other.keep_settings({})


def test_the_plot_has_a_panel_a_strategy_and_in_it_a_line_a_training_and_one_for_the_base(table: Path) -> None:
    figure = draw(read_recording(table))
    panels = {axes.get_title(): axes for axes in figure.axes if axes.get_title() and axes.get_visible()}
    assert set(panels) == {"bitfit (2)", "dylora (1)"}
    assert len(panels["dylora (1)"].lines) == 1 + 1  # the base's

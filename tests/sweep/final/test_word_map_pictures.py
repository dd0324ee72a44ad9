"""Word maps of a run's films, from its adapter to the picture beside the sheet: each in its place, at its own scale."""

from __future__ import annotations

import json

import numpy as np
import pandas as pd
import pytest
from adapted import adapted
from PIL import Image
from typer import Typer
from typer.testing import CliRunner

from analysis.front.pareto import Front, FrontPoint, Objective
from analysis.run_folder import RunFolder
from sweep import evaluate
from sweep.config import DataConfig, EvaluationConfig, SweepConfig
from sweep.final.word_maps import scorer_of, write_word_maps
from trainables.datasets.phantom import PhantomSource
from trainables.datasets.store import DataChangedError
from trainables.datasets.writing import write_dataset
from trainables.sampling import generate
from trainables.word_maps import mapped_batches

pytestmark = pytest.mark.slow

SHOWN = ("Edema", "Cardiomegaly")
DATA = DataConfig(source="phantom", num_patients=60, resolution_px=64, seed=2, conditions=SHOWN)
OPTIONS = {"num_steps": 1, "guidance_scale": 3.0, "batch_size": 3}


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    """The directory of a run of one trial, whose adapter was moved at random."""
    folder = tmp_path_factory.mktemp("run")
    source = PhantomSource(num_patients=DATA.num_patients, resolution_px=64, seed=DATA.seed)
    write_dataset(source, folder / "cache" / "dataset")
    config = SweepConfig(data=DATA, evaluation=EvaluationConfig(images_per_condition=2, **OPTIONS))
    (folder / "config.json").write_text(json.dumps(config.model_dump(mode="json")))
    models, strategy = adapted("lora")
    strategy.export(models, folder / "trials" / "a1" / "adapter")
    row = {"trial_id": "a1", "number": 0, "status": "completed", "strategy": "lora", "fid_mini": 9.0, "vendi_mini": 2.0}
    pd.DataFrame([row]).to_parquet(folder / "trials.parquet")
    values = {"fid_mini": 9.0, "vendi_mini": 2.0}
    point = FrontPoint(trial_id="a1", strategy="lora", values=values, params={}, knee=True)
    objectives = (Objective("fid_mini", "min"), Objective("vendi_mini", "max"))
    Front(objectives=objectives, points=(point,)).write(folder / "pareto.json")
    return RunFolder.open(folder)


def test_each_map_is_in_its_place_at_its_own_scale_and_the_films_are_those_of_the_sheet(run: RunFolder) -> None:
    scorer, samples = scorer_of(run), run.folder / "trials" / "a1" / "samples.png"
    films = write_word_maps(scorer, run.adapter("a1"), samples)
    models, plan = scorer.adapted(run.adapter("a1")), scorer.plan
    assert np.array_equal(films, generate(models, plan.prompts, plan.seeds, **OPTIONS))
    with Image.open(samples.with_name("samples-words.png")) as image:
        layout, pixels = json.loads(image.info["word_maps"]), np.asarray(image)
    assert layout["words"] == ["Chest", "X-ray", "of", "a", "subject", "with"] and layout["side"] == 16
    tiles = pixels.reshape(7, len(SHOWN), 18, 8, 18)
    for film, (label, column) in enumerate(zip(plan.labels, plan.places, strict=True)):
        request = [[plan.prompts[film]], [int(plan.seeds[film])], [[label[0], "subject"]]]
        (mapped,) = mapped_batches(models, *request, **OPTIONS)
        for number, word in enumerate((0, 5)):
            expected, row = mapped.maps[0, number], SHOWN.index(label[0])
            assert layout["peaks"][word][row][column] == pytest.approx(expected.max(), rel=1e-3)
            assert layout["lows"][word][row][column] == pytest.approx(expected.min(), rel=1e-2)
            tile = tiles[word, row, :, column]
            np.testing.assert_allclose(tile[1:-1, 1:-1] / 255, (expected - expected.min()) / expected.max(), atol=0.004)
            assert np.array_equal(tile[0, 1:-1], tile[1, 1:-1])
    assert tiles[:, :, :, plan.places.max() + 1 :].max() == 0


def test_the_command_maps_the_base_and_the_trials_and_shows_them_in_the_report(run: RunFolder) -> None:
    app = Typer()
    app.command()(evaluate.main)
    done = CliRunner().invoke(app, ["--run", str(run.folder), "--pick", "front", "--word-maps"])
    assert done.exit_code == 0, done.output
    assert {path.name for path in run.folder.glob("**/*-words.png")} == {"baseline-words.png", "samples-words.png"}
    assert not (run.folder / "evaluation").exists()
    assert "baseline-words.png" in done.stdout and (run.folder / "report.html").is_file()


def test_options_of_the_final_evaluation_are_refused_beside_the_maps(run: RunFolder) -> None:
    app = Typer()
    app.command()(evaluate.main)
    given = ["--seeds", "3", "--boxes", "boxes.csv"]
    done = CliRunner().invoke(app, ["--run", str(run.folder), "--word-maps", *given])
    assert done.exit_code == 1
    assert "`--word-maps` must stand without --seeds and --boxes, but got both" in " ".join(done.stderr.split())


def test_data_that_are_not_those_of_the_sweep_are_refused(run: RunFolder) -> None:
    """The films of a drawn data set lie in the run directory, where another program may have written others."""
    began = run.folder / "provenance.json"
    assert scorer_of(run).held_out is not None  # nothing tells what the data were
    try:
        began.write_text(json.dumps({"data_fingerprint": "f00d"}))
        with pytest.raises(DataChangedError, match="`data set` must be the one that the sweep began with, f00d, but"):
            scorer_of(run)
    finally:
        began.unlink()

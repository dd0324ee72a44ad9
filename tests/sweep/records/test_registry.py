"""The knee in MLflow's registry makes the films that the engine makes, and its files are not there twice."""

from __future__ import annotations

import io
from pathlib import Path

import mlflow
import numpy as np
import pandas as pd
import pytest
import torch
from adapted import adapted
from mlflow import MlflowClient
from PIL import Image

from analysis.front.pareto import Front, FrontPoint, Objective
from sweep.presets import demo
from sweep.records.tracking import Tracker
from sweep.scoring.streaming import as_grey
from sweep.trials.ends import TrialEnd
from trainables.base_models.models import load_base
from trainables.sampling import generate
from trainables.strategies import load_adapter

PROMPTS = ["Chest X-ray of a subject with edema", "film"]


@pytest.fixture(scope="module")
def out(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run directory whose sweep ended twice with the same knee."""
    out = tmp_path_factory.mktemp("run") / "run"
    models, strategy = adapted("lora", rank=2)
    strategy.export(models, out / "trials" / "a" / "adapter")
    knee = FrontPoint(trial_id="a", strategy="lora", values={"fid_mini": 1.0}, params={}, knee=True)
    for _ in range(2):
        tracker = Tracker.start(demo(), out)
        tracker.trial("a", "lora", {"rank": 2})
        tracker.end("a", TrialEnd.completed(), [out / "trials" / "a" / "adapter"])
        tracker.finish(Front(objectives=(Objective("fid_mini", "min"),), points=(knee,)))
    return out


@pytest.mark.slow
def test_the_knee_makes_the_engines_films_from_prompts(out: Path) -> None:
    mlflow.set_tracking_uri(f"sqlite:///{out / 'mlflow.db'}")
    try:
        model = mlflow.pyfunc.load_model("models:/radiograph-demo@knee")
        films = model.predict(pd.DataFrame({"prompt": PROMPTS}), {"seed": 7, "num_steps": 2})
    finally:
        mlflow.set_tracking_uri(None)
    models = load_base("mini")
    load_adapter(models, out / "trials" / "a" / "adapter")
    images = generate(models, PROMPTS, [7, 8], num_steps=2, guidance_scale=4.0, batch_size=2)
    wanted = as_grey(torch.from_numpy(images)).numpy()
    assert list(films["prompt"]) == PROMPTS
    for content, film in zip(films["png"], wanted, strict=True):
        np.testing.assert_array_equal(np.asarray(Image.open(io.BytesIO(content))), film)


@pytest.mark.slow
def test_a_knee_that_is_known_gets_no_other_version_and_no_copy(out: Path) -> None:
    client = MlflowClient(f"sqlite:///{out / 'mlflow.db'}")
    (only,) = client.search_model_versions("name = 'radiograph-demo'")
    assert client.get_model_version_by_alias("radiograph-demo", "knee").version == only.version
    adapter = out / "trials" / "a" / "adapter"
    for file in adapter.iterdir():
        places = [path for path in out.rglob(file.name) if path.is_file()]
        assert len(places) == 3, places  # the trial's own, the run's, and the model's
        assert {path.stat().st_ino for path in places} == {file.stat().st_ino}

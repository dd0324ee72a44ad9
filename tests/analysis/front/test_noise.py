"""How far objectives are off: by the resamples' own covariance, by epochs, and not at all."""

from __future__ import annotations

import numpy as np
import pandas as pd

from analysis.front.noise import Evidence, draw_noise, relative_spread
from analysis.front.objectives import BASE
from analysis.front.pareto import Objective

OBJECTIVES = (
    Objective("fid_mini", "min"),
    Objective("trainable_parameters", "min"),
    Objective("vendi_mini", "max"),
    Objective("epoch_s", "min"),
)
DONE = pd.DataFrame(
    {"trial_id": ["a", "b"], "fid_mini": [5.0, 6.0], "trainable_parameters": [1, 2], "vendi_mini": [2.0, 3.0], "epoch_s": [4.0, 8.0]}
)  # fmt: skip
BASELINE = {"fid_mini": 9.0, "vendi_mini": 1.0}


def _results(spread: float, num_epochs: int = 60) -> pd.DataFrame:
    rng = np.random.default_rng(3)
    return pd.DataFrame(
        [
            {
                "trial_id": trial,
                "epoch": epoch,
                "epoch_s": (90.0 if epoch == 0 else mean) * np.exp(spread * rng.normal()),
            }
            for trial, mean in (("a", 4.0), ("b", 8.0))
            for epoch in range(num_epochs)
        ]
    )


def test_it_is_off_as_the_resamples_are_together_and_seconds_as_epochs_differ() -> None:
    rng = np.random.default_rng(0)
    mixed = rng.standard_normal((64, 6)) @ rng.standard_normal((6, 6))
    resamples = {
        name: pd.DataFrame(mixed[:, 2 * index : 2 * index + 2], columns=["fid_mini", "vendi_mini"])
        for index, name in enumerate(("a", "b", BASE))
    }
    evidence = Evidence(baseline=BASELINE, resamples=resamples, results=_results(0.1))
    noise = draw_noise(DONE, OBJECTIVES, evidence)
    assert noise is not None and noise.trials.shape == (500, 2, 4) and noise.base.shape == (500, 4)
    drawn = np.concatenate([noise.trials[:, :, [0, 2]].reshape(500, 4), noise.base[:, [0, 2]]], axis=1)
    wanted = np.cov(mixed, rowvar=False)
    assert np.abs(np.cov(drawn, rowvar=False) - wanted).max() < 0.25 * np.abs(wanted).max()
    assert not noise.trials[:, :, 1].any() and not noise.base[:, [1, 3]].any()
    assert np.allclose(noise.trials[:, :, 3].std(axis=0), [0.4, 0.8], rtol=0.25)


def test_nothing_is_known_of_films_that_were_not_resampled_or_otherwise() -> None:
    table = pd.DataFrame({"fid_mini": [1.0, 2.0], "vendi_mini": [1.0, 2.0]})
    whole = {"a": table, "b": table, BASE: table}
    for lacking in (
        {"a": table},
        whole | {"b": table[["fid_mini"]]},
        whole | {"b": table.head(1)},
        {"a": table, "b": table},
    ):
        assert draw_noise(DONE, OBJECTIVES, Evidence(baseline=BASELINE, resamples=lacking)) is None
    assert draw_noise(DONE, OBJECTIVES, Evidence(baseline=BASELINE, resamples=whole)) is not None
    assert draw_noise(DONE, OBJECTIVES, Evidence(resamples={"a": table, "b": table})) is not None


def test_the_spread_of_epochs_leaves_out_the_first_and_what_differs_between_trials() -> None:
    assert np.isclose(relative_spread(_results(0.1), "epoch_s"), 0.1, rtol=0.2)
    assert np.isclose(relative_spread(_results(0.0), "epoch_s"), 0.0, atol=1e-9)
    assert relative_spread(_results(0.1, num_epochs=2), "epoch_s") == 0.0
    assert relative_spread(pd.DataFrame(), "epoch_s") == 0.0
    both = pd.DataFrame({"trial_id": ["a", "a"], "epoch": [1, 2], "epoch_s": [1.0, np.exp(0.2)]})
    assert np.isclose(relative_spread(both, "epoch_s"), 0.2 / np.sqrt(2))

"""A generator that gives few different films is caught by Vendi score and recall, on phantom films."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray
from phantom_films import PhantomFilms

from analysis.features import load_extractor
from analysis.metrics import METRICS

NUM_PROTOTYPES = 4
Features = NDArray[np.float32]


@pytest.fixture(scope="module")
def features(phantom: PhantomFilms) -> dict[str, Features]:
    """Of test films, of as many training films, and of few training films again and again with a little noise."""
    extractor, num_films = load_extractor("mini"), len(phantom.test)
    varied = phantom.train.images[:num_films]
    repeated = varied[np.arange(num_films) % NUM_PROTOTYPES]
    noise = np.random.default_rng(0).normal(0, 2, repeated.shape)
    collapsed = np.clip(repeated + noise, 0, 255).round().astype(np.uint8)
    films = {"real": phantom.test.images, "varied": varied, "collapsed": collapsed}
    return {name: extractor.extract(stack) for name, stack in films.items()}


def test_the_vendi_score_counts_no_more_than_what_is_left(features: dict[str, Features]) -> None:
    varied, collapsed = (METRICS["vendi"].fn(features[name], features["real"]) for name in ("varied", "collapsed"))
    real = METRICS["vendi"].fn(features["real"], features["real"])
    assert varied == pytest.approx(real, rel=0.15)
    assert collapsed < 0.7 * varied and collapsed <= NUM_PROTOTYPES + 0.1


def test_recall_falls_while_precision_stays(features: dict[str, Features]) -> None:
    shares = {
        name: {metric: METRICS[metric].fn(features[name], features["real"]) for metric in ("precision", "recall")}
        for name in ("varied", "collapsed")
    }
    assert shares["varied"]["recall"] > 0.7, shares
    assert shares["collapsed"]["recall"] < 0.1, shares
    assert shares["collapsed"]["precision"] > shares["varied"]["precision"] - 0.3, shares

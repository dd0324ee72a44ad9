"""What every extractor promises whose weights are at hand: features of an image depend on that image alone."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from analysis.features import EXTRACTORS, load_extractor
from analysis.features.base import FeatureExtractor

FETCHED = ("xrv", "inception", "clip", "rad_dino")
"""Begin the names of those whose weights come over a network; tests/analysis/features shows them with random weights."""


@pytest.fixture(params=[name for name in EXTRACTORS if not name.startswith(FETCHED)])
def extractor(request: pytest.FixtureRequest) -> FeatureExtractor:
    return load_extractor(request.param)


def films(count: int = 70) -> NDArray[np.uint8]:
    """More than one batch."""
    return np.random.default_rng(0).integers(0, 256, (count, 64, 64), np.uint8)


def test_it_says_what_its_features_depend_on(extractor: FeatureExtractor) -> None:
    assert EXTRACTORS[extractor.name] is not None
    assert extractor.weights_hash and extractor.preprocessing


def test_features_are_finite_float32_of_its_dimension(extractor: FeatureExtractor) -> None:
    features = extractor.extract(films(3))
    assert features.dtype == np.float32 and features.shape == (3, extractor.dim)
    assert np.isfinite(features).all() and features.std(axis=0).max() > 0


def test_neither_order_nor_company_changes_an_images_features(extractor: FeatureExtractor) -> None:
    images = films()
    together, order = extractor.extract(images), np.random.default_rng(1).permutation(len(images))
    np.testing.assert_allclose(extractor.extract(images[order]), together[order], rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(extractor.extract(images[:1]), together[:1], rtol=1e-4, atol=1e-4)


def test_grey_in_three_channels_is_grey(extractor: FeatureExtractor) -> None:
    images = films(3)
    coloured = np.repeat(images[..., None], 3, axis=-1)
    np.testing.assert_allclose(extractor.extract(coloured), extractor.extract(images), rtol=1e-4, atol=1e-3)

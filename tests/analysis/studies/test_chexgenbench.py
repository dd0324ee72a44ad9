"""CheXGenBench's figures against second implementations: torchvision, scipy, scikit-learn and plain torch."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from phantom_films import PhantomFilms
from PIL import Image
from scipy.linalg import sqrtm
from sklearn.metrics import f1_score, pairwise_distances, roc_auc_score
from sklearn.metrics.pairwise import polynomial_kernel
from torch.nn import functional
from torchvision import transforms

from analysis.films import labelled
from analysis.films.labelled import LabelledImages, mirror_and_turn, standardise_like_imagenet
from analysis.studies.chexgenbench import (
    ARMS,
    TRAINING,
    BenchmarkData,
    fidelity_row,
    inception_score,
    squash,
    training_films,
    utility_row,
)
from analysis.studies.classifiers import Training
from analysis.studies.decisions import Scored, multi_label_scores
from analysis.studies.networks import build_classifier
from analysis.studies.recipes import RECIPES

SMALL = replace(TRAINING, architecture="small", batch_size=32, max_epochs=6, peak_lr=3e-3)


@pytest.fixture(scope="module")
def data(phantom: PhantomFilms) -> BenchmarkData:
    """300 real films; the synthetic ones are films of others, so that nothing can be learnt from them."""
    real = phantom.train.take(range(300))
    wrong = np.random.default_rng(0).permutation(real.images)
    return BenchmarkData(real=real, synthetic=LabelledImages(wrong, real.labels, real.conditions), test=phantom.test)


def test_films_are_squashed_as_torchvision_does_it() -> None:
    films = np.random.default_rng(0).integers(0, 256, (2, 320, 320), dtype=np.uint8)
    seen = transforms.Compose([transforms.Resize((299, 299)), transforms.ToTensor()])
    expected = torch.stack([(seen(Image.fromarray(film).convert("RGB")) * 255).to(torch.uint8) for film in films])
    np.testing.assert_array_equal(squash(films), expected[:, 0].numpy())


def test_fidelity_is_that_of_plain_formulas() -> None:
    rng = np.random.default_rng(1)
    generated, real = rng.normal(0.3, 1.1, (80, 6)), rng.normal(size=(80, 6))
    row = fidelity_row(generated, real)
    shift = generated.mean(axis=0) - real.mean(axis=0)
    first, second = np.cov(generated.T), np.cov(real.T)
    root = np.trace(np.real(sqrtm(first @ second)))
    assert row["fid"] == pytest.approx(shift @ shift + np.trace(first + second) - 2 * root, rel=1e-6)
    kernels = [polynomial_kernel(a, b, degree=3, gamma=1 / 6, coef0=1) for a, b in ((generated,) * 2, (real,) * 2)]
    within = sum((kernel.sum() - np.trace(kernel)) / (80 * 79) for kernel in kernels)
    across = polynomial_kernel(generated, real, degree=3, gamma=1 / 6, coef0=1).mean()
    assert row["kid"] == pytest.approx(within - 2 * across, rel=1e-9)
    to_real = pairwise_distances(real, generated)
    radii, own_radii = (np.sort(pairwise_distances(points))[:, 5] for points in (real, generated))
    inside = to_real < radii[:, None]
    assert row["precision"] == pytest.approx(inside.any(axis=0).mean())
    assert row["recall"] == pytest.approx((to_real < own_radii[None]).any(axis=1).mean())
    assert row["density"] == pytest.approx(inside.sum() / 5 / 80)
    assert row["coverage"] == pytest.approx((to_real.min(axis=1) < radii).mean())


def test_subsets_of_the_larger_set_are_as_large_as_the_smaller_set() -> None:
    """Of real films that are all one, every subset gives the same, in closed form."""
    generated, film = np.random.default_rng(2).normal(size=(9, 4)), np.arange(4.0)
    many, few = (fidelity_row(generated, np.tile(film, (count, 1)))["kid"] for count in (30, 9))
    assert many == pytest.approx(few, rel=1e-12)
    assert set(fidelity_row(generated[:5], np.tile(film, (5, 1)))) == {"fid", "kid"}


def test_the_inception_score_is_that_of_torch() -> None:
    features = np.random.default_rng(3).normal(size=(47, 12)) * 3
    order = np.random.default_rng(42).permutation(47)
    parts = []
    for part in torch.from_numpy(features[order]).chunk(10):
        shares = part.softmax(dim=1)
        mean = shares.mean(dim=0, keepdim=True).log().expand_as(part)
        parts.append(functional.kl_div(mean, shares, reduction="none").sum(dim=1).mean().exp())
    assert inception_score(features) == pytest.approx(float(torch.stack(parts).mean()), rel=1e-9)
    assert inception_score(np.tile(features[:1], (20, 1))) == pytest.approx(1)
    assert inception_score(np.tile(1e3 * np.eye(4), (5, 1)), num_splits=1) == pytest.approx(4)
    with pytest.raises(ValueError, match="`features` must be of at least 10 films, but got 9"):
        inception_score(features[:9])


def test_scores_of_all_conditions_are_those_of_scikit_learn() -> None:
    rng = np.random.default_rng(4)
    labels = rng.random((60, 4)) < [0.5, 0.2, 0.7, 0.0]
    probabilities = np.clip(0.5 * labels + 0.7 * rng.random((60, 4)), 0, 1)
    probabilities[:, 3] = 0.1
    scores, assigned = multi_label_scores(Scored(probabilities, labels, tuple("abcd"))), probabilities >= 0.5
    assert scores.f1_micro == pytest.approx(f1_score(labels, assigned, average="micro", zero_division=0))
    assert scores.f1_macro == pytest.approx(f1_score(labels, assigned, average="macro", zero_division=0))
    assert scores.auc_macro == pytest.approx(roc_auc_score(labels[:, :3], probabilities[:, :3], average="macro"))
    with pytest.raises(ValueError, match="`labels` must have a condition that some images show"):
        multi_label_scores(Scored(probabilities[:, 3:], labels[:, 3:], ("d",)))


def test_its_training_is_as_published() -> None:
    assert (TRAINING.architecture, TRAINING.batch_size, TRAINING.max_epochs) == ("resnet50", 768, 20)
    assert (TRAINING.peak_lr, TRAINING.weight_decay, TRAINING.seed) == (1e-4, 1e-5, 42)
    assert TRAINING.patience == TRAINING.max_epochs  # never stopped
    schedule = RECIPES[TRAINING.recipe].schedule(torch.nn.Linear(2, 2), 1e-4, 1e-5, 9)
    (group,) = schedule.optimizer.param_groups
    assert type(schedule.optimizer) is torch.optim.Adam and group["weight_decay"] == 1e-5
    rates = []
    for loss in (1.0, 1.0, 1.0, 1.0, 0.5):
        schedule.after_step()
        schedule.after_epoch(loss)
        rates.append(group["lr"])
    assert rates == pytest.approx([1e-4, 1e-4, 1e-4, 1e-5, 1e-5])


def test_its_loss_weighs_all_alike_and_the_last_films_are_used(data: BenchmarkData) -> None:
    torch.manual_seed(0)
    train, validation = data.real.take(range(70)), replace(data.synthetic, patients=None).take(range(20))
    training = Training(build_classifier("small", len(train.conditions)), train, validation, SMALL)
    assert sorted(torch.cat(list(training._batches())).tolist()) == list(range(70))
    with torch.no_grad():
        levels = torch.from_numpy(validation.images).float()
        logits = training.network.eval()(labelled.standardise(levels, 1))
    expected = functional.binary_cross_entropy_with_logits(logits, torch.from_numpy(validation.labels).float())
    assert training.validation_loss() == pytest.approx(float(expected), rel=1e-5)


def test_pixels_are_normalised_as_for_imagenet() -> None:
    film = np.random.default_rng(5).integers(0, 256, (8, 8), dtype=np.uint8)
    steps = transforms.Compose(
        [transforms.ToTensor(), transforms.Normalize((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))]
    )
    expected = steps(Image.fromarray(film).convert("RGB"))
    torch.testing.assert_close(standardise_like_imagenet(torch.from_numpy(film)[None], 3)[0], expected)


def test_every_second_film_is_mirrored_and_all_are_turned(monkeypatch: pytest.MonkeyPatch) -> None:
    films = torch.from_numpy(np.random.default_rng(6).integers(1, 256, (200, 16, 16), dtype=np.uint8))
    turned = mirror_and_turn(films, torch.Generator().manual_seed(0))
    assert turned.shape == films.shape and float((turned[:, 0, 0] == 0).float().mean()) > 0.3  # black corners
    monkeypatch.setattr(labelled, "MAX_ANGLE", 0.0)
    upright = mirror_and_turn(films, torch.Generator().manual_seed(0))
    kept, mirrored = ((upright == other).flatten(1).all(dim=1) for other in (films, films.flip(-1)))
    assert bool((kept ^ mirrored).all()) and int(mirrored.sum()) == pytest.approx(100, abs=30)


def test_arms_have_each_caption_as_often_as_they_should(data: BenchmarkData) -> None:
    arms = {arm: training_films(arm, data) for arm in ARMS}
    assert {arm: len(films) for arm, films in arms.items()} == dict(zip(ARMS, (300, 300, 300, 600), strict=True))
    kinds = {film.tobytes() for film in data.real.images}
    assert all(film.tobytes() in kinds for film in arms["original"].images)
    np.testing.assert_array_equal(arms["augmented"].labels, np.tile(data.real.labels, (2, 1)))
    mixed = arms["mixed"]
    assert np.array_equal(np.sort(mixed.labels, axis=0), np.sort(data.real.labels, axis=0))  # each caption once
    whole = BenchmarkData(
        real=data.real, synthetic=replace(data.synthetic, images=255 - data.real.images), test=data.test
    )
    halves = training_films("mixed", whole).images
    assert np.array_equal(
        np.sort(np.minimum(halves, 255 - halves).sum(axis=(1, 2))),
        np.sort(np.minimum(data.real.images, 255 - data.real.images).sum(axis=(1, 2))),
    )
    assert sum(film.tobytes() in kinds for film in halves) == 150
    with pytest.raises(ValueError, match="`synthetic` must have one film for each of `real`, with its labels"):
        replace(data, synthetic=data.synthetic.take(range(9)))


def test_a_classifier_learns_from_real_films_and_not_from_worthless_ones(data: BenchmarkData) -> None:
    (original, scored), (synthetic, _) = (utility_row(arm, data, SMALL) for arm in ("original", "synthetic"))
    assert original.auc_macro > 0.7 and abs(synthetic.auc_macro - 0.5) < 0.15
    assert original == multi_label_scores(scored) and len(scored) == len(data.test)

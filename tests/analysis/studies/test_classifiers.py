"""The classifiers know the phantom's findings, are the same again, survive the disk, and refuse what cannot train."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from phantom_films import PhantomFilms
from safetensors.torch import save_file
from torch.nn import functional

from analysis.films.labelled import LabelledImages, augment, resize, standardise
from analysis.studies.classifiers import (
    ImageClassifier,
    Training,
    TrainingSettings,
    load_classifier,
    positive_weights,
    train_classifier,
)
from analysis.studies.decisions import choose_thresholds, score_decisions
from analysis.studies.networks import ARCHITECTURES, build_classifier

QUICK = TrainingSettings(max_epochs=2, patience=2)


@pytest.fixture(scope="module")
def few(phantom: PhantomFilms) -> tuple[LabelledImages, LabelledImages]:
    """Few films to train and to validate on."""
    return phantom.train.take(range(96)), phantom.validation.take(range(60))


def test_every_finding_of_unseen_patients_is_known(classifier: ImageClassifier, phantom: PhantomFilms) -> None:
    thresholds = choose_thresholds(classifier.score(phantom.validation))
    by_finding = score_decisions(classifier.score(phantom.test), thresholds)
    assert min(scores.auc for scores in by_finding.values()) >= 0.95, by_finding
    assert min(scores.balanced_accuracy for scores in by_finding.values()) >= 0.85, by_finding


def test_films_of_another_size_are_judged_alike(classifier: ImageClassifier, phantom: PhantomFilms) -> None:
    films = phantom.test.images[:16]
    large = films.repeat(2, axis=1).repeat(2, axis=2)
    assert np.abs(classifier.predict(large) - classifier.predict(films)).mean() < 0.05


def test_brightness_and_contrast_tell_nothing(classifier: ImageClassifier) -> None:
    films = np.random.default_rng(0).integers(100, 150, (4, 64, 64)).astype(np.uint8)
    brighter = (films.astype(np.int64) * 2 - 80).astype(np.uint8)
    np.testing.assert_allclose(classifier.predict(brighter), classifier.predict(films), atol=1e-3)


def test_a_seed_gives_the_same_weights_and_leaves_torchs_generator(few: tuple[LabelledImages, LabelledImages]) -> None:
    before = torch.get_rng_state()
    first, again = (train_classifier(*few, QUICK) for _ in range(2))
    other = train_classifier(*few, replace(QUICK, seed=1))
    assert first.weights_hash == again.weights_hash != other.weights_hash
    assert torch.equal(torch.get_rng_state(), before)


def test_the_best_epoch_is_kept(few: tuple[LabelledImages, LabelledImages]) -> None:
    torch.manual_seed(0)
    training = Training(build_classifier("small", 6), *few, replace(QUICK, max_epochs=6, peak_lr=0.05))
    losses = training.fit()
    assert training.validation_loss() == pytest.approx(min(losses), rel=1e-6) != losses[-1]


def test_training_stops_when_the_validation_loss_no_longer_falls(few: tuple[LabelledImages, LabelledImages]) -> None:
    torch.manual_seed(0)
    train, validation = few
    wrong = LabelledImages(validation.images, ~validation.labels, validation.conditions)
    training = Training(build_classifier("small", 6), train, wrong, replace(QUICK, max_epochs=40, patience=2))
    losses = training.fit()
    assert len(losses) < 40
    assert len(losses) - 1 - losses.index(min(losses)) == 2


def test_the_validation_loss_is_torchs_weighted_loss(few: tuple[LabelledImages, LabelledImages]) -> None:
    torch.manual_seed(0)
    training = Training(build_classifier("small", 6), *few, QUICK)
    validation = few[1]
    with torch.no_grad():
        logits = training.network.eval()(standardise(torch.from_numpy(validation.images), 1))
    labels = torch.from_numpy(validation.labels).float()
    expected = functional.binary_cross_entropy_with_logits(logits, labels, pos_weight=positive_weights(few[0].labels))
    assert training.validation_loss() == pytest.approx(float(expected), rel=1e-5)


def test_weights_balance_the_classes() -> None:
    labels = np.zeros((100, 3), np.bool_)
    labels[:50, 0], labels[:10, 1], labels[:1, 2] = True, True, True
    np.testing.assert_allclose(positive_weights(labels).numpy(), [1, 9, 20])


def test_saved_classifiers_judge_alike(classifier: ImageClassifier, phantom: PhantomFilms, tmp_path: Path) -> None:
    classifier.save(tmp_path / "classifier")
    again = load_classifier(tmp_path / "classifier")
    np.testing.assert_array_equal(again.predict(phantom.test.images[:8]), classifier.predict(phantom.test.images[:8]))
    assert (again.weights_hash, again.conditions) == (classifier.weights_hash, classifier.conditions)


def test_changed_and_damaged_files_are_refused(classifier: ImageClassifier, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"`folder` must hold a classifier.json"):
        load_classifier(tmp_path)
    classifier.save(tmp_path)
    state = {name: value.clone() for name, value in classifier.network.state_dict().items()}
    state["classifier.bias"] += 1
    save_file(state, tmp_path / "weights.safetensors")
    with pytest.raises(ValueError, match="`weights` must have the hash"):
        load_classifier(tmp_path)
    (tmp_path / "classifier.json").write_text(json.dumps({"architecture": "small"}))
    with pytest.raises(
        ValueError, match=r"`classifier.json` must hold \['architecture', 'conditions', 'weights_hash'\]"
    ):
        load_classifier(tmp_path)
    (tmp_path / "classifier.json").write_text("{")
    with pytest.raises(ValueError, match=r"`classifier.json` must be JSON"):
        load_classifier(tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "num_parameters"), [("efficientnet_b0", 4_015_234), ("densenet121", 6_960_006), ("resnet50", 23_520_326)]
)
def test_torchvisions_networks_train_and_start_from_given_weights(
    name: str, num_parameters: int, few: tuple[LabelledImages, LabelledImages], tmp_path: Path
) -> None:
    torch.manual_seed(3)
    pretrained = build_classifier(name, 1000)
    save_file(pretrained.state_dict(), tmp_path / "weights.safetensors")
    network = build_classifier(name, 6, initial_weights=tmp_path / "weights.safetensors")
    assert sum(parameter.numel() for parameter in network.parameters()) == num_parameters
    taken = [key for key in network.state_dict() if not key.startswith(ARCHITECTURES[name].head)]
    assert all(torch.equal(network.state_dict()[key], pretrained.state_dict()[key]) for key in taken)
    conditions = ("Edema", "No Finding")
    films = LabelledImages(few[0].images[:2], np.array([[1, 0], [0, 1]]), conditions)
    settings = TrainingSettings(architecture=name, max_epochs=1, batch_size=2)
    probabilities = train_classifier(films, films, settings).predict(films.images)
    assert probabilities.shape == (2, 2)
    assert np.isfinite(probabilities).all() and probabilities.min() >= 0 and probabilities.max() <= 1


def test_weights_of_another_network_are_refused(tmp_path: Path) -> None:
    save_file(build_classifier("small", 3).state_dict(), tmp_path / "weights.safetensors")
    with pytest.raises(ValueError, match=r"`initial_weights` must be of DenseNet"):
        build_classifier("densenet121", 3, initial_weights=tmp_path / "weights.safetensors")
    with pytest.raises(ValueError, match=r"`architecture` must be a known name, but got 'densenet'. Did you mean"):
        build_classifier("densenet", 3)


def test_augmented_films_keep_their_size_and_differ() -> None:
    films = torch.from_numpy(np.random.default_rng(0).integers(0, 256, (3, 32, 32), dtype=np.uint8))
    varied = augment(films, torch.Generator().manual_seed(0))
    assert varied.shape == films.shape
    assert float(varied.min()) >= 0 and float(varied.max()) <= 255
    assert not torch.equal(varied.round().to(torch.uint8), films)


def test_a_larger_film_is_averaged() -> None:
    flat = np.full((2, 128, 128), 77, np.uint8)
    assert torch.equal(resize(flat, 64), torch.full((2, 64, 64), 77, dtype=torch.uint8))


def test_sets_that_cannot_train_are_refused(few: tuple[LabelledImages, LabelledImages]) -> None:
    train, validation = few
    with pytest.raises(ValueError, match="`validation` must be of other patients than the training images, but got"):
        train_classifier(train, train, QUICK)
    healthy = train.labels.copy()
    healthy[:, 2] = False
    with pytest.raises(ValueError, match="`train` must hold images with and without 'Edema', but got 0 with it of 96"):
        train_classifier(LabelledImages(train.images, healthy, train.conditions), validation, QUICK)
    renamed = LabelledImages(validation.images, validation.labels, tuple("abcdef"))
    with pytest.raises(ValueError, match="`validation` must have the conditions of `train`"):
        train_classifier(train, renamed, QUICK)
    with pytest.raises(
        FloatingPointError,
        match=r"`validation probabilities` must be finite, but got NaN: the training diverged. Lower",
    ):
        train_classifier(train, validation, replace(QUICK, peak_lr=1e30))


def test_images_that_are_none_are_refused(
    classifier: ImageClassifier, few: tuple[LabelledImages, LabelledImages]
) -> None:
    for images in (np.zeros((2, 64, 64)), np.zeros((2, 64, 32), np.uint8), np.zeros((0, 64, 64), np.uint8)):
        with pytest.raises(ValueError, match="`images` must be square grey uint8"):
            classifier.predict(images)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"`labels` must be \[96, 6\]"):
        LabelledImages(few[0].images, few[0].labels[:5], few[0].conditions)
    with pytest.raises(ValueError, match="`patients` must name one for each of 96 images, but got 1"):
        LabelledImages(few[0].images, few[0].labels, few[0].conditions, ("a",))
    with pytest.raises(ValueError, match="`max_epochs` must be at least 1, but got 0"):
        TrainingSettings(max_epochs=0)
    with pytest.raises(ValueError, match="`peak_lr` must be finite and not negative, but got nan"):
        TrainingSettings(peak_lr=float("nan"))
    with pytest.raises(ValueError, match="`conditions` must be the classifier's"):
        classifier.score(LabelledImages(few[0].images, few[0].labels, tuple("abcdef")))

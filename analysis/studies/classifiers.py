"""Multi-label image classifiers for alignment and utility: training with early stopping, prediction, files."""

from __future__ import annotations

import copy
import json
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from analysis.checks import both_classes, expect, look_up, unique_names
from analysis.features.weights import hash_state, load_exactly, read_state, write_state
from analysis.files import whole_file
from analysis.films.labelled import LabelledImages, check_images, require_other_patients, resize
from analysis.studies.decisions import Scored
from analysis.studies.networks import ARCHITECTURES, build_classifier
from analysis.studies.recipes import RECIPES, Schedule

PREDICTION_BATCH = 128
MAX_POSITIVE_WEIGHT = 20.0
"""A condition rarer than one in twenty counts no more than that: a handful of films must not steer the training."""


@dataclass(frozen=True, kw_only=True)
class TrainingSettings:
    """How a classifier is trained.

    Attributes:
        architecture: `small`, `efficientnet_b0`, `densenet121` or `resnet50`.
        recipe: `one_cycle`, or `chexgenbench` as that benchmark trains: Adam, rate by plateau, mirrored and turned films.
        max_epochs: passes over the images if the training is not stopped before.
        patience: epochs without a lower validation loss after which it is.
        batch_size: images of one optimiser step.
        peak_lr: highest learning rate of the recipe's schedule.
        weight_decay: the optimiser's; AdamW's takes lr times this share of a weight away in a step.
        seed: draws the weights, the batches and the augmentation.
        initial_weights: safetensors to start from, such as torchvision's ImageNet weights.
        device: where it computes, such as `cpu` or `cuda`.
    """

    architecture: str = "small"
    recipe: str = "one_cycle"
    max_epochs: int = 20
    patience: int = 6
    batch_size: int = 32
    peak_lr: float = 3e-3
    weight_decay: float = 1e-2
    seed: int = 0
    initial_weights: Path | None = None
    device: str = "cpu"

    def __post_init__(self) -> None:
        """Refuse what cannot train."""
        look_up(ARCHITECTURES, self.architecture, "architecture")
        look_up(RECIPES, self.recipe, "recipe")
        for name in ("max_epochs", "patience", "batch_size"):
            expect(getattr(self, name) >= 1, f"`{name}` must be at least 1", getattr(self, name), "Raise it.")
        for name in ("peak_lr", "weight_decay"):
            value = getattr(self, name)
            expect(math.isfinite(value) and value >= 0, f"`{name}` must be finite and not negative", value, "Set it.")


class ImageClassifier:
    """A trained network with the conditions it knows."""

    def __init__(self, network: nn.Module, *, architecture: str, conditions: Sequence[str], device: str) -> None:
        """Hold a network for evaluation on a device."""
        self.network = network.eval().requires_grad_(False).to(device)
        self.architecture = architecture
        self.conditions = unique_names(conditions)
        self.device = device

    @property
    def weights_hash(self) -> str:
        """Hex digest of the weights."""
        return hash_state(self.network.state_dict())

    def predict(self, images: NDArray[np.uint8]) -> NDArray[np.float64]:
        """Probability of each condition, as the training weighted it: rare conditions come out higher than frequent.

        Args:
            images: uint8[n, H, W] grey, square.

        Returns:
            float64[n, conditions] in [0, 1].

        Raises:
            ValueError: `images` is something else.
        """
        pixels = resize(check_images(images), ARCHITECTURES[self.architecture].input_px)
        return _probabilities(self.network, pixels, self.architecture, self.device)

    def score(self, labelled: LabelledImages) -> Scored:
        """Probabilities beside the labels.

        Raises:
            ValueError: the labels are of other conditions than those that the classifier knows.
        """
        rule = f"`conditions` must be the classifier's, {list(self.conditions)}"
        expect(labelled.conditions == self.conditions, rule, list(labelled.conditions), "Label by them, in this order.")
        return Scored(self.predict(labelled.images), labelled.labels, self.conditions)

    def save(self, folder: Path) -> None:
        """Write `weights.safetensors` and `classifier.json`; the latter, last, holds the hash of the former."""
        write_state(self.network.state_dict(), folder / "weights.safetensors")
        card = {"architecture": self.architecture, "conditions": self.conditions, "weights_hash": self.weights_hash}
        with whole_file(folder / "classifier.json") as file:
            file.write((json.dumps(card, indent=2) + "\n").encode())


def load_classifier(folder: Path, *, device: str = "cpu") -> ImageClassifier:
    """Read what `ImageClassifier.save` wrote.

    Args:
        folder: holds `weights.safetensors` and `classifier.json`.
        device: where to compute.

    Raises:
        FileNotFoundError: a file is missing.
        ValueError: a file is damaged, or the weights are not those of `classifier.json`.
    """
    card, path = _read_card(folder / "classifier.json"), folder / "weights.safetensors"
    state = read_state(path)
    rule = f"`weights` must have the hash {card['weights_hash']} of classifier.json"
    expect(hash_state(state) == card["weights_hash"], rule, f"{hash_state(state)} of {str(path)!r}", "Save them again.")
    network = build_classifier(card["architecture"], len(card["conditions"]))
    load_exactly(network, state, path)
    return ImageClassifier(network, architecture=card["architecture"], conditions=card["conditions"], device=device)


def _read_card(path: Path) -> dict[str, Any]:
    if not path.is_file():
        raise FileNotFoundError(
            f"`folder` must hold a {path.name}, but got no {str(path)!r}. Train a classifier first."
        )
    try:
        card = json.loads(path.read_text(encoding="utf-8"))
    except json.JSONDecodeError as error:
        raise ValueError(f"`{path.name}` must be JSON, but got {str(path)!r}: {error}. Save it again.") from error
    keys = {"architecture", "conditions", "weights_hash"}
    came = sorted(card) if isinstance(card, dict) else type(card).__name__
    expect(
        isinstance(card, dict) and keys <= set(card), f"`{path.name}` must hold {sorted(keys)}", came, "Save it again."
    )
    return dict(card)


def train_classifier(
    train: LabelledImages, validation: LabelledImages, settings: TrainingSettings | None = None
) -> ImageClassifier:
    """Fit a network with binary cross-entropy, and keep the epoch with the lowest validation loss.

    By our recipe a positive counts as often as there are negatives for each of it, so that rare conditions are learnt.
    The same seed gives the same weights on the same machine.

    Args:
        train: with and without each condition.
        validation: of other patients; likewise.
        settings: how to train; the defaults suit `small`.

    Raises:
        ValueError: conditions differ, a patient is in both sets, or a condition is on all images or none and the recipe
            weights by how many show it.
        FloatingPointError: the training diverged.
    """
    settings = settings or TrainingSettings()
    _check_sets(train, validation, balanced=RECIPES[settings.recipe].balanced)
    devices = [] if settings.device == "cpu" else [settings.device]
    with torch.random.fork_rng(devices):
        torch.manual_seed(settings.seed)
        network = build_classifier(
            settings.architecture, len(train.conditions), initial_weights=settings.initial_weights
        ).to(settings.device)
        Training(network, train, validation, settings).fit()
    return ImageClassifier(
        network, architecture=settings.architecture, conditions=train.conditions, device=settings.device
    )


def _check_sets(train: LabelledImages, validation: LabelledImages, *, balanced: bool) -> None:
    rule = f"`validation` must have the conditions of `train`, {list(train.conditions)}"
    expect(validation.conditions == train.conditions, rule, list(validation.conditions), "Label both alike.")
    if balanced:
        both_classes(train.labels, train.conditions, "train")
        both_classes(validation.labels, train.conditions, "validation")
    require_other_patients(train, validation, "validation")


class Training:
    """One fit of a network: its data on the device, its optimiser, its best state so far."""

    def __init__(
        self, network: nn.Module, train: LabelledImages, validation: LabelledImages, settings: TrainingSettings
    ) -> None:
        self.network, self.settings, self.recipe = network, settings, RECIPES[settings.recipe]
        side_px = ARCHITECTURES[settings.architecture].input_px
        self.pixels, self.validation_pixels = resize(train.images, side_px), resize(validation.images, side_px)
        self.labels = torch.from_numpy(train.labels.astype(np.float32)).to(settings.device)
        self.validation_labels = torch.from_numpy(validation.labels.astype(np.float64))
        self.weights = positive_weights(train.labels) if self.recipe.balanced else torch.ones(train.labels.shape[1])
        self.batch_size = min(settings.batch_size, len(train))
        self.generator = torch.Generator().manual_seed(settings.seed)

    def fit(self) -> list[float]:
        """Train until the validation loss has not fallen for `patience` epochs; then go back to the best.

        Returns:
            The validation loss after each epoch.
        """
        settings = self.settings
        num_steps = settings.max_epochs * (len(self.pixels) // self.batch_size)
        schedule = self.recipe.schedule(self.network, settings.peak_lr, settings.weight_decay, num_steps)
        losses: list[float] = []
        best_epoch, best_state = 0, self.network.state_dict()
        while len(losses) < settings.max_epochs and len(losses) - 1 - best_epoch < settings.patience:
            self._train_epoch(schedule)
            losses.append(self.validation_loss())
            schedule.after_epoch(losses[-1])
            if losses[-1] <= min(losses):
                best_epoch, best_state = len(losses) - 1, copy.deepcopy(self.network.state_dict())
        self.network.load_state_dict(best_state)
        return losses

    def _train_epoch(self, schedule: Schedule) -> None:
        self.network.train()
        taken = ARCHITECTURES[self.settings.architecture]
        weights = self.weights.to(self.settings.device)
        for rows in self._batches():
            pixels = self.recipe.augment(self.pixels[rows], self.generator).to(self.settings.device)
            logits = self.network(taken.standardise(pixels, taken.channels))
            loss = functional.binary_cross_entropy_with_logits(logits, self.labels[rows], pos_weight=weights)
            schedule.optimizer.zero_grad(set_to_none=True)
            loss.backward()  # type: ignore[no-untyped-call]
            schedule.optimizer.step()
            schedule.after_step()

    def _batches(self) -> Iterator[Tensor]:
        """Rows of batches; by our recipe of full ones only: batch statistics of a few images would mislead."""
        order = torch.randperm(len(self.pixels), generator=self.generator)
        kept = len(order) - len(order) % self.batch_size if self.recipe.whole_batches else len(order)
        yield from torch.split(order[:kept], self.batch_size)

    def validation_loss(self) -> float:
        """Weighted binary cross-entropy of the validation images; lower is better.

        Raises:
            FloatingPointError: the network gives NaN.
        """
        settings = self.settings
        probabilities = _probabilities(self.network, self.validation_pixels, settings.architecture, settings.device)
        if not np.isfinite(probabilities).all():
            raise FloatingPointError(
                "`validation probabilities` must be finite, but got NaN: the training diverged. "
                f"Lower `peak_lr`, now {settings.peak_lr:g}."
            )
        rows = self.validation_labels * (self.weights.double() - 1) + 1
        loss = functional.binary_cross_entropy(torch.from_numpy(probabilities), self.validation_labels, weight=rows)
        return float(loss)


def positive_weights(labels: NDArray[np.bool_]) -> Tensor:
    """Negatives a positive of each condition, float32[c], in [1 / 20, 20]."""
    positive = labels.sum(axis=0)
    weights = (len(labels) - positive) / positive
    return torch.from_numpy(np.clip(weights, 1 / MAX_POSITIVE_WEIGHT, MAX_POSITIVE_WEIGHT).astype(np.float32))


@torch.inference_mode()
def _probabilities(network: nn.Module, pixels: Tensor, architecture: str, device: str) -> NDArray[np.float64]:
    """float64[n, c] of uint8[n, H, W] in the network's size."""
    network.eval()
    taken = ARCHITECTURES[architecture]
    logits = [
        network(taken.standardise(part.to(device), taken.channels)).double()
        for part in torch.split(pixels, PREDICTION_BATCH)
    ]
    probabilities: NDArray[np.float64] = torch.sigmoid(torch.cat(logits)).cpu().numpy()
    return probabilities

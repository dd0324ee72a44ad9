"""What the studies of a final evaluation share: models, real and generated films, features, the classifier."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import cached_property, lru_cache
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from analysis.features import FeatureCache, load_extractor
from analysis.features.base import FeatureExtractor
from analysis.films.gallery import Gallery
from analysis.films.labelled import LabelledImages
from analysis.final_scores import EVALUATION
from analysis.studies.classifiers import ImageClassifier, TrainingSettings, load_classifier, train_classifier
from analysis.studies.decisions import Thresholds, choose_thresholds
from analysis.studies.memorisation import Calibration, attainable_confidence, calibrate
from sweep.config import SweepConfig
from sweep.final.marks import place_boxes
from sweep.final.plan import CaptionPlan, label_rows, plan_captions, two_sided
from sweep.final.settings import FinalSettings
from sweep.picks import Run
from sweep.scoring.identity import feature_key, file_hash, sampling_digest, weights_digest
from sweep.scoring.scorer import conditions_to_score
from sweep.scoring.streaming import as_grey, compared_films, extract_split
from trainables.base_models.models import DiffusionModels, load_base
from trainables.datasets.base import SPLITS
from trainables.datasets.store import PreparedDataset
from trainables.datasets.tensors import TensorCache
from trainables.membership_losses import split_moments
from trainables.sampling import generate
from trainables.strategies import load_adapter

MIRRORED = ("test", "train")
"""Splits whose captions films are generated for: test for what is measured, train for utility, both for copies."""
HELD_OUT = ("validation", "test")
"""Splits whose films were not trained on."""


@dataclass(frozen=True, kw_only=True)
class Finalist:
    """A model that is evaluated.

    Attributes:
        trial_id: its trial, or `base`.
        strategy: name of its strategy.
        adapter: what its training exported; None is the un-adapted base.
        seed: of its training.
        trains: the parts of the base that it changed.
        folder: where its results go.
    """

    trial_id: str
    strategy: str
    adapter: Path | None
    seed: int
    trains: tuple[str, ...]
    folder: Path


class Workbench:
    """Everything of a run that finalists are evaluated with; each thing is made once and kept."""

    def __init__(self, run: Run, settings: FinalSettings, boxes: Path | None = None) -> None:
        """Open a run directory; nothing is computed yet.

        Args:
            run: the run.
            settings: how its finalists are evaluated.
            boxes: list of where findings lie on the films, as `read_boxes` takes it.

        Raises:
            FileNotFoundError: the data or the list are missing.
            ValueError: no condition can be scored, or the list tells nothing of the test films.
        """
        self.run, self.settings = run, settings
        self.config = SweepConfig.model_validate(run.config)
        self.device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        self.dataset = PreparedDataset.open(dataset_folder(run, self.config))
        self.splits = {name: self.dataset.split(name) for name in SPLITS}
        self.conditions = _scored_conditions(self.dataset, self.config)
        self.boxes = None if boxes is None else place_boxes(boxes, self.splits["test"])
        self.on_progress: Callable[[int], None] = lambda _: None
        self._tensors = TensorCache(run.folder / "cache")
        self._features = FeatureCache(run.folder / "cache" / "features")
        self.models = lru_cache(maxsize=1)(self._models)

    @cached_property
    def base(self) -> DiffusionModels:
        """The un-adapted base model."""
        return load_base(self.config.base)

    @cached_property
    def extractor(self) -> FeatureExtractor:
        """The run's feature extractor."""
        own = self.config.evaluation
        return load_extractor(own.extractor, weights=own.extractor_weights, device=self.device)

    @cached_property
    def plans(self) -> dict[str, CaptionPlan]:
        """What is generated for the captions of each mirrored split."""
        count, seed = self.settings.images_per_condition, self.config.seed
        return {name: plan_captions(self.splits[name], self.conditions, count, seed) for name in MIRRORED}

    def _models(self, finalist: Finalist) -> DiffusionModels:
        """The finalist's model on the device; the last one asked for is kept."""
        models = self.base.fresh()
        if finalist.adapter is not None:
            load_adapter(models, finalist.adapter)
        return models.to(self.device)

    def real(self, split: str) -> LabelledImages:
        """All real films of a split with the scored conditions."""
        data = self.splits[split]
        images = data.images(np.arange(len(data)))
        return LabelledImages(images, self.real_labels(split), self.conditions, tuple(data.patient_ids))

    def real_labels(self, split: str) -> NDArray[np.bool_]:
        """Which scored conditions each film of a split shows, bool[n, c]."""
        return label_rows(self.splits[split].conditions, self.conditions)

    def real_features(self, split: str) -> NDArray[np.float32]:
        """Features of all films of a split, once a run: the sweep has taken those of its validation films."""
        data = self.splits[split]
        key = feature_key(self.extractor, f"{self.dataset.fingerprint}-{split}", len(data))
        return self._features.get_or_compute(key, lambda: extract_split(data, self.extractor))

    def generated(self, finalist: Finalist, split: str) -> NDArray[np.uint8]:
        """Grey films of a finalist for the captions of a split, uint8[n, H, W]; made once and kept."""
        stored = self._tensors.get_or_create(
            self._name(finalist, split), "films", lambda: {"films": self._generate(finalist, self.plans[split])}
        )
        return np.array(stored["films"])

    def generated_features(self, finalist: Finalist, split: str) -> NDArray[np.float32]:
        """Their features, likewise."""
        key = feature_key(self.extractor, f"grey-{self._name(finalist, split)}", len(self.plans[split]))
        return self._features.get_or_compute(key, lambda: self.extractor.extract(self.generated(finalist, split)))

    def moments(self, finalist: Finalist, split: str) -> NDArray[np.float32]:
        """What the autoencoder makes of a split's films, float32[n, 8, h, w]; cached where it is the base's own.

        The training split's are those that the sweep trained on.
        """
        data = self.splits[split]
        if "vae" in finalist.trains:
            return split_moments(self.models(finalist), data)
        key = f"{self.dataset.fingerprint}-{split}-{self.base.base.weights_hash}"
        stored = self._tensors.get_or_create(
            key, "moments", lambda: {"moments": split_moments(self.models(finalist), data)}
        )
        return stored["moments"]

    def features_of(self, films: NDArray[np.uint8], name: str) -> NDArray[np.float32]:
        """Features of other films made from the finalist's weights, such as reconstructions."""
        content = hashlib.sha256(films.tobytes()).hexdigest()[:32]
        key = feature_key(self.extractor, f"{name}-{content}", len(films))
        return self._features.get_or_compute(key, lambda: self.extractor.extract(films))

    def gallery(self, *splits: str) -> Gallery:
        """All real films of some splits, to find neighbours among; as small as they are compared."""
        features = np.concatenate([self.real_features(name) for name in splits])
        films = np.concatenate([compared_films(self.splits[name]) for name in splits])
        patients = tuple(patient for name in splits for patient in self.splits[name].patient_ids)
        return Gallery(features.astype(np.float64), films, patients)

    @cached_property
    def calibration(self) -> Calibration:
        """When a film counts as a copy of a training film, by real films of held-out patients."""
        held_out, share = self.gallery(*HELD_OUT), self.settings.max_false_alarms
        confidence = attainable_confidence(len(set(held_out.groups())), share)
        return calibrate(self.gallery("train"), held_out, max_false_alarms=share, confidence=confidence)

    @cached_property
    def classifier(self) -> ImageClassifier:
        """The classifier of alignment: trained on real training films once for all finalists of the same settings.

        Raises:
            ValueError: no condition is on some films and absent on others in every split.
        """
        settings, names = self._classifier_settings(), self.learnable()
        recipe = asdict(settings) | {"initial_weights": file_hash(settings.initial_weights), "device": None}
        made_of = (self.dataset.fingerprint, names, sorted(recipe.items()))
        folder = self.run.folder / EVALUATION / "classifiers" / hashlib.sha256(repr(made_of).encode()).hexdigest()[:16]
        if (folder / "classifier.json").is_file():
            return load_classifier(folder, device=str(self.device))
        trained = train_classifier(only(self.real("train"), names), only(self.real("validation"), names), settings)
        trained.save(folder)
        return trained

    def _classifier_settings(self) -> TrainingSettings:
        return self.settings.classifier(self.dataset.resolution_px, self.settings.alignment_epochs, str(self.device))

    @cached_property
    def thresholds(self) -> Thresholds:
        """From which probability on the classifier assigns a condition, by real validation films."""
        return choose_thresholds(self.classifier.score(only(self.real("validation"), self.classifier.conditions)))

    def learnable(self, *more: NDArray[np.bool_]) -> tuple[str, ...]:
        """The scored conditions that a classifier can be trained on and judged by, in all splits and in more tables.

        Raises:
            ValueError: there is none.
        """
        found = two_sided([*(self.real_labels(name) for name in SPLITS), *more], self.conditions)
        if not found:
            raise ValueError(
                "`conditions` must be on some films and absent on others in every split to train a classifier, but got "
                f"none such among {', '.join(self.conditions)}. Prepare more patients."
            )
        return found

    def weights(self, finalist: Finalist) -> str:
        """Hash of a finalist's weights."""
        return weights_digest(self.base.base.weights_hash, finalist.adapter)

    def _name(self, finalist: Finalist, split: str) -> str:
        return f"{self.weights(finalist)}-{self.plans[split].digest()}-{sampling_digest(self.config.evaluation)}"

    def _generate(self, finalist: Finalist, plan: CaptionPlan) -> NDArray[np.uint8]:
        own = self.config.evaluation
        colours = generate(
            self.models(finalist), plan.prompts, plan.seeds, num_steps=own.num_steps,
            guidance_scale=own.guidance_scale, batch_size=own.batch_size, on_progress=self.on_progress,
        )  # fmt: skip
        return as_grey(colours)


def only(films: LabelledImages, conditions: tuple[str, ...]) -> LabelledImages:
    """The same films with fewer conditions."""
    columns = [films.conditions.index(name) for name in conditions]
    return LabelledImages(films.images, films.labels[:, columns], conditions, films.patients)


def dataset_folder(run: Run, config: SweepConfig) -> Path:
    """Where the prepared data of a run are."""
    drawn = run.folder / "cache" / "dataset"
    return config.data.path if config.data.source == "prepared" and config.data.path is not None else drawn


def _scored_conditions(dataset: PreparedDataset, config: SweepConfig) -> tuple[str, ...]:
    """Of the conditions that the sweep scored, those that at least two test films and two training films show."""
    swept = conditions_to_score(dataset, config.evaluation.split, config.data.conditions)
    shown = (set(conditions_to_score(dataset, split, None)) for split in MIRRORED)
    enough = set.intersection(*shown)
    found = tuple(name for name in swept if name in enough)
    if not found:
        raise ValueError(
            f"`test` must show a condition that the sweep scored on at least 2 films, but got {', '.join(swept)} without. "
            "Prepare more films."
        )
    return found

"""What the studies of a final evaluation share: models, real and generated films, features, the classifier."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property, lru_cache
from pathlib import Path
from tempfile import TemporaryFile

import numpy as np
from numpy.typing import NDArray

from analysis.films.gallery import Gallery
from analysis.films.labelled import LabelledImages
from analysis.final_scores import EVALUATION
from analysis.run_folder import CACHE, RunFolder
from analysis.studies.classifiers import ImageClassifier, TrainingSettings, load_classifier, train_classifier
from analysis.studies.decisions import Thresholds, choose_thresholds
from analysis.studies.memorisation import Calibration, attainable_confidence, calibrate
from analysis.studies.networks import ARCHITECTURES
from sweep.config import SweepConfig
from sweep.final.marks import place_boxes
from sweep.final.settings import FinalSettings
from sweep.loading import parse_config
from sweep.scoring.identity import feature_key, file_hash
from sweep.scoring.plans import GenerationPlan, conditions_to_score, known_rows, label_rows, plan_by_caption, two_sided
from sweep.scoring.streaming import ComparedFilms, as_grey, films_of_side
from sweep.scoring.studio import Studio, with_adapter
from trainables.base_models.models import DiffusionModels, load_base
from trainables.datasets.base import SPLITS
from trainables.datasets.checksums import CheckedArray
from trainables.datasets.store import PreparedDataset
from trainables.datasets.tensors import TensorCache
from trainables.membership_losses import split_moments
from trainables.numerics import FULL

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
        seed: the seed of its training.
        trains: the parts of the base that it changed.
        folder: where its results go.
    """

    trial_id: str
    strategy: str
    adapter: Path | None
    seed: int
    trains: tuple[str, ...]
    folder: Path


class Workbench(Studio):
    """Everything of a run that finalists are evaluated with; each thing is made once and kept."""

    def __init__(self, run: RunFolder, settings: FinalSettings, boxes: Path | None = None) -> None:
        """Open a run directory; nothing is computed yet.

        Args:
            run: the run.
            settings: how its finalists are evaluated.
            boxes: list of where findings lie on the films, as `read_boxes` takes it.

        Raises:
            DataChangedError: the data are gone, or others than those that the sweep began with.
            FileNotFoundError: the list is missing.
            ValueError: no condition can be scored, or the list tells nothing of the test films.
        """
        self.run, self.settings = run, settings
        self.config = parse_config(run.config)
        super().__init__(
            base=self.config.base,
            resolution_px=self.config.resolution_px,
            dataset=dataset_folder(run, self.config),
            cache_folder=run.folder / CACHE,
            evaluation=self.config.evaluation,
        )
        self.splits = {name: self.dataset.split(name) for name in SPLITS}
        self.conditions = _scored_conditions(self.dataset, self.config)
        self.boxes = None if boxes is None else place_boxes(boxes, self.splits["test"])
        self.on_progress: Callable[[int], None] = lambda _: None
        self._tensors = TensorCache(run.folder / CACHE)
        self._last_adapted = lru_cache(maxsize=1)(lambda adapter: with_adapter(self.measured_base, adapter))

    @cached_property
    def plans(self) -> dict[str, GenerationPlan]:
        """What is generated for the captions of each mirrored split."""
        count, seed = self.settings.images_per_condition, self.config.seed
        return {name: plan_by_caption(self.splits[name], self.conditions, count, seed) for name in MIRRORED}

    @cached_property
    def measured_base(self) -> DiffusionModels:
        """The un-adapted base in float32 on the device: what is measured of it itself is not rounded as films may be."""
        if self.numerics == FULL:
            return self.base
        return load_base(self.config.base).for_films_of(self.config.resolution_px).to(self.device)

    def models(self, finalist: Finalist) -> DiffusionModels:
        """The finalist's model in float32 on the device; the last one asked for is kept."""
        return self._last_adapted(finalist.adapter)

    def known(self, split: str, rows: Sequence[int] | NDArray[np.int64] | None = None) -> list[int]:
        """Rows of a split, or those given, whose labels leave no scored condition open."""
        return known_rows(self.splits[split], self.conditions, rows)

    def judged(self, split: str) -> NDArray[np.bool_]:
        """Which of the planned films stand against such a film, bool[n]."""
        rows = self.plans[split].rows
        return np.isin(rows, self.known(split, rows))

    def sampled(self, split: str) -> list[int]:
        """Rows of the known films of a split that classifiers get to see: all, or the most that the settings allow."""
        known, most = self.known(split), self.settings.classifier_films
        drawn = np.random.default_rng(self.config.seed).permutation(len(known))[:most]
        return [known[place] for place in np.sort(drawn)]

    def samples(self) -> dict[str, dict[str, int]]:
        """Of each split how many films classifiers get to see, and of how many."""
        return {name: {"films": len(self.sampled(name)), "of": len(self.known(name))} for name in SPLITS}

    def real(self, split: str, rows: Sequence[int] | NDArray[np.int64] | None = None) -> LabelledImages:
        """The real films that classifiers get to see of a split, or the known ones of those rows, in a classifier's size."""
        data, known = self.splits[split], self.sampled(split) if rows is None else self.known(split, rows)
        labels = label_rows([data.conditions[row] for row in known], self.conditions)
        images = films_of_side(data.images, np.array(known, np.int64), self.classifier_px)
        return LabelledImages(images, labels, self.conditions, tuple(data.patient_ids[row] for row in known))

    def real_labels(self, split: str) -> NDArray[np.bool_]:
        """Which scored conditions each film shows that classifiers get to see of a split, bool[n, c]."""
        data = self.splits[split]
        return label_rows([data.conditions[row] for row in self.sampled(split)], self.conditions)

    @property
    def classifier_px(self) -> int:
        """Side of the films that classifiers take; others are made of that size first, one batch at a time."""
        return ARCHITECTURES[self._classifier_settings().architecture].input_px

    def generated(self, finalist: Finalist, split: str) -> NDArray[np.uint8]:
        """Grey films of a finalist for the planned captions of a split, uint8[n, H, W]; made once and kept."""
        return self.films_for(finalist, self.plans[split])

    def films_for(self, finalist: Finalist, plan: GenerationPlan) -> NDArray[np.uint8]:
        """Grey films of a finalist for a plan, likewise."""
        return np.array(self.stored_films(finalist, plan).whole())

    def stored_films(self, finalist: Finalist, plan: GenerationPlan) -> CheckedArray:
        """The same where they are kept: rows are read when they are asked for."""
        name = self.name_of(finalist.adapter, plan, self.evaluation)
        stored = self._tensors.get_or_create(name, "films", lambda: {"films": self._generate(finalist, plan)})
        return stored["films"]

    def generated_features(self, finalist: Finalist, split: str) -> NDArray[np.float32]:
        """Their features, likewise."""
        key = self.generated_key(finalist.adapter, self.plans[split], self.evaluation)
        return self.features.get_or_compute(key, lambda: self.extractor.extract(self.generated(finalist, split)))

    def moments(self, finalist: Finalist, split: str, rows: NDArray[np.int64]) -> NDArray[np.float32]:
        """What the autoencoder makes of some films, float32[n, 8, h, w]; kept where it is the base's own.

        Args:
            finalist: whose autoencoder.
            split: of the films.
            rows: int64[n] of them.
        """
        data = self.splits[split]
        if "vae" in finalist.trains:
            return split_moments(self.models(finalist), data, rows)
        which = hashlib.sha256(rows.tobytes()).hexdigest()[:16]
        stored = self._tensors.get_or_create(
            f"{self.dataset.fingerprint}-{split}-{self.base.vae_hash}-{which}",
            "sampled_moments",
            lambda: {"moments": split_moments(self.models(finalist), data, rows)},
        )
        return stored["moments"].whole()

    def features_of(self, films: NDArray[np.uint8], name: str) -> NDArray[np.float32]:
        """Features of other films made from the finalist's weights, such as reconstructions."""
        content = hashlib.sha256(np.ascontiguousarray(films)).hexdigest()[:32]
        key = feature_key(self.extractor, f"{name}-{content}", len(films))
        return self.features.get_or_compute(key, lambda: self.extractor.extract(films))

    def training_films(self) -> Gallery:
        """All training films, to find neighbours among: none is left out, as a copy may be of any; they stay on the disk."""
        data = self.splits["train"]
        return Gallery(self.real_features("train"), ComparedFilms(data), tuple(data.patient_ids))

    def held_out_films(self) -> Gallery:
        """Films of held-out patients, of as many patients as the settings allow, or all; as small as they are compared."""
        patients = [patient for name in HELD_OUT for patient in self.splits[name].patient_ids]
        chosen = rows_of_patients(patients, self.settings.held_out_films, self.config.seed)
        parts, start = [], 0
        for name in HELD_OUT:
            count = len(self.splits[name])
            rows = chosen[(chosen >= start) & (chosen < start + count)] - start
            parts.append((self.real_features(name)[rows], ComparedFilms(self.splits[name])[rows]))
            start += count
        features, films = (np.concatenate(part) for part in zip(*parts, strict=True))
        return Gallery(features, films, tuple(patients[row] for row in chosen))

    @cached_property
    def calibration(self) -> Calibration:
        """When a film counts as a copy of a training film, by real films of held-out patients."""
        held_out, share = self.held_out_films(), self.settings.max_false_alarms
        confidence = attainable_confidence(len(set(held_out.groups())), share)
        return calibrate(self.training_films(), held_out, max_false_alarms=share, confidence=confidence)

    @cached_property
    def classifier(self) -> ImageClassifier:
        """The classifier of alignment: trained on real training films once for all finalists of the same settings.

        Raises:
            ValueError: no condition is on some films and absent on others in every split.
        """
        settings, names = self._classifier_settings(), self.learnable()
        recipe = asdict(settings) | {"initial_weights": file_hash(settings.initial_weights), "device": None}
        made_of = (self.dataset.fingerprint, names, sorted(recipe.items()), self.settings.classifier_films)
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
        """The probability from which on the classifier assigns each condition, chosen on real validation films."""
        return choose_thresholds(self.classifier.score(only(self.real("validation"), self.classifier.conditions)))

    def learnable(self, *more: NDArray[np.bool_]) -> tuple[str, ...]:
        """The scored conditions that a classifier can be trained on and judged by, in all splits and in more tables.

        Raises:
            ValueError: there is none.
        """
        conditions = two_sided([*(self.real_labels(name) for name in SPLITS), *more], self.conditions)
        if not conditions:
            raise ValueError(
                "`conditions` must be on some films and absent on others in every split to train a classifier, but got "
                f"none such among {', '.join(self.conditions)}. Prepare more patients."
            )
        return conditions

    def _generate(self, finalist: Finalist, plan: GenerationPlan) -> NDArray[np.uint8]:
        with TemporaryFile(dir=self._tensors.folder) as file:  # memory may not hold them all
            for films in self.generate(self.adapted(finalist.adapter), plan, self.evaluation):
                grey = as_grey(films).cpu().numpy()
                file.write(grey.tobytes())
                self.on_progress(len(grey))
            file.flush()
            return np.memmap(file, np.uint8, "r", shape=(len(plan), *grey.shape[1:]))


def only(films: LabelledImages, conditions: tuple[str, ...]) -> LabelledImages:
    """The same films with fewer conditions."""
    columns = [films.conditions.index(name) for name in conditions]
    return LabelledImages(films.images, films.labels[:, columns], conditions, films.patients)


def rows_of_patients(patients: Sequence[str], most: int, seed: int) -> NDArray[np.int64]:
    """Rows, ascending, of all films of some patients: of all, or of as many as have no more films together than are allowed.

    Args:
        patients: of each film.
        most: films.
        seed: chooses the patients.
    """
    names, of_film, counts = np.unique(np.array(patients), return_inverse=True, return_counts=True)
    order = np.random.default_rng(seed).permutation(len(names))
    chosen = order[np.cumsum(counts[order]) <= most]
    return np.flatnonzero(np.isin(of_film, chosen))


def dataset_folder(run: RunFolder, config: SweepConfig) -> Path:
    """Where the prepared data of a run are.

    Args:
        run: the run.
        config: of it.

    Raises:
        DataChangedError: they are gone, or others than those that the sweep began with.
    """
    drawn = run.folder / CACHE / "dataset"
    folder = config.data.path if config.data.source == "prepared" and config.data.path is not None else drawn
    return PreparedDataset.expected(folder, run.data_fingerprint()).folder


def _scored_conditions(dataset: PreparedDataset, config: SweepConfig) -> tuple[str, ...]:
    """The conditions that the sweep scored and that at least two test films and two training films show."""
    swept = conditions_to_score(dataset, config.evaluation.split, config.data.conditions)
    shown = (set(conditions_to_score(dataset, split, None)) for split in MIRRORED)
    enough = set.intersection(*shown)
    conditions = tuple(name for name in swept if name in enough)
    if not conditions:
        raise ValueError(
            f"`test` must show a condition that the sweep scored on at least 2 films, but got {', '.join(swept)} without. "
            "Prepare more films."
        )
    return conditions

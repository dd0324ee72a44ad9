"""Scores adapters of trials: generates, takes features once, compares with held-out films. No mathematics here."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray

from analysis.files import whole_file
from analysis.metrics import METRICS, LabelledFeatures, evaluate
from analysis.metrics.resamples import resampled_values
from analysis.run_folder import resamples_beside
from sweep.config import EvaluationConfig
from sweep.scoring.plans import GenerationPlan, label_rows, plan_by_condition
from sweep.scoring.rungs import at_rung, earlier_image_counts, early_scores
from sweep.scoring.shards import FilmJob, helper, made_together, packed, while_wanted
from sweep.scoring.streaming import Chosen, Drawn, Films, drawn, extract_and_keep
from sweep.scoring.studio import Studio
from trainables.datasets.store import PreparedDataset
from trainables.sheets import labelled_sheet

log = logging.getLogger(__name__)
SHEET_COLUMNS = 8


@contextmanager
def ended_with_its_device() -> Iterator[None]:
    """End this process where its device is lost in the block: only a new one, which Ray starts, can compute on it again."""
    try:
        yield
    except torch.AcceleratorError:
        log.exception("`device` must stay there, but was lost; this process ends.")
        os._exit(1)


@dataclass(frozen=True, kw_only=True)
class EvaluationSpec:
    """What every trial of a sweep is scored against.

    Attributes:
        base: a hub id, a folder, or `mini`.
        dataset: folder of the prepared data set.
        conditions: the findings that films are generated for.
        cache_folder: where features are kept, for all processes of the sweep.
        seed: chooses the films that are compared with, and the noise.
        config: how films are made, and with which extractor they are compared.
        resampled: metrics whose last values are taken on resampled films and patients too.
        fingerprint: of the data set, as the sweep began with it; None: it may be any.
        resolution_px: side of the films; None: the base's own.
    """

    base: str
    dataset: Path
    conditions: tuple[str, ...]
    cache_folder: Path
    seed: int
    config: EvaluationConfig
    resampled: tuple[str, ...] = ()
    fingerprint: str | None = None
    resolution_px: int | None = None


class AdapterScorer(Studio):
    """Scores adapters of one sweep; keeps base model, extractor and reference features warm."""

    @ended_with_its_device()
    def __init__(self, spec: EvaluationSpec) -> None:
        super().__init__(
            base=spec.base,
            resolution_px=spec.resolution_px,
            dataset=spec.dataset,
            cache_folder=spec.cache_folder,
            evaluation=spec.config,
        )
        self.conditions, self._seed, self._fingerprint = spec.conditions, spec.seed, spec.fingerprint
        self._resampled = [METRICS[name] for name in spec.resampled]
        self.held_out = self.dataset.split(spec.config.split)
        self.plan = plan_by_condition(
            self.held_out,
            spec.conditions,
            spec.config.images_per_condition,
            seed=spec.seed,
            template=self.dataset.prompts,
        )
        self._references: dict[int, LabelledFeatures] = {}
        self._helpers: Sequence[Any] = ()
        self._last: tuple[object, dict[str, float]] | None = None
        """What was scored last, and its metrics: a trial that was cut off from this process asks again."""

    @cached_property
    def held_out_features(self) -> NDArray[np.float32]:
        """Features of all held-out films."""
        return self.real_features(self.evaluation.split)

    @ended_with_its_device()
    def prepare(self, reference_sheet: Path) -> None:
        """Load what scoring needs, so that lacks show before trials are trained; leaves held-out films for the eye.

        Raises:
            DataChangedError: the films are not those that the sweep began with.
        """
        PreparedDataset.expected(self.dataset.folder, self._fingerprint)
        _ = self.base, self.held_out_features
        self.save_reference_sheet(reference_sheet)

    @ended_with_its_device()
    def score(self, adapter: Path | None, samples: Path, share_done: float = 1.0, *helpers: Any) -> dict[str, float]:
        """Metrics of an adapter, or of the base model as it is.

        Args:
            adapter: a folder that a strategy exported; None scores the un-adapted base.
            samples: where to write a sheet of generated films (PNG); what resampled films and patients make of the last
                evaluation goes beside it (`resamples_beside`).
            share_done: share of the training that is behind it; before its end, see `sweep.scoring.rungs`.
            helpers: Ray's handles of scorers that have nothing to do, and make some of the films.

        Raises:
            DataChangedError: the films are not those that the sweep began with.
        """
        PreparedDataset.expected(self.dataset.folder, self._fingerprint)
        self._helpers = helpers
        config = at_rung(self.evaluation, share_done)
        asked = self.name_of(adapter, self._plan_of(config.images_per_condition), config), samples, share_done
        if self._last is None or self._last[0] != asked:
            self._last = asked, self._scored(adapter, samples, config, is_last=share_done == 1)
        return self._last[1]

    @ended_with_its_device()
    def films(self, job: FilmJob, batches: range) -> tuple[Films, Films]:
        """Some films of an evaluation that another scorer is at: all in grey, and those that are shown as they are.

        Args:
            job: all films of the evaluation.
            batches: numbers of those to make.

        Raises:
            HelperLostError: nobody waits for them any more.
        """
        return packed(while_wanted(self._make(job, batches)))

    def _scored(
        self, adapter: Path | None, samples: Path, config: EvaluationConfig, *, is_last: bool
    ) -> dict[str, float]:
        plan = self._plan_of(config.images_per_condition)
        features, shown = self._features_at(adapter, config)
        self.save_sheet(shown, plan.only(plan.places < SHEET_COLUMNS).labels, samples)
        generated, reference = LabelledFeatures(features, plan.labels), self._reference_of(config.images_per_condition)
        extractor, early, last = self.extractor.name, {}, {}
        if not is_last:
            early = early_scores(generated, reference, extractor=extractor, num_steps=config.num_steps)
        if config == self.evaluation:
            self._save_resamples(generated, reference, resamples_beside(samples))
            last = evaluate(METRICS.values(), generated, reference, extractor=extractor, conditions=self.conditions)
        return early | last

    def _save_resamples(self, generated: LabelledFeatures, reference: LabelledFeatures, to: Path) -> None:
        """A column for each resampled metric under its reported name, a row a resample: the same for all adapters."""
        films = np.unique(self.plan.rows)
        values = resampled_values(
            self._resampled,
            generated.features,
            reference.features,
            groups=[self.held_out.patient_ids[row] for row in films],
            seed=self._seed,
        )
        if values:
            table = pd.DataFrame(
                {METRICS[name].reported_name(self.extractor.name): column for name, column in values.items()}
            )
            with whole_file(to) as file:
                table.to_parquet(file, index=False)

    def save_sheet(self, films: Films, labels: Sequence[Sequence[str]], to: Path) -> None:
        """A row of films for each condition, as PNG.

        Args:
            films: uint8[n, H, W] or [n, H, W, 3].
            labels: conditions of each film.
            to: the file to write.
        """
        shown = label_rows(labels, self.conditions).T
        sheet = labelled_sheet({name: films[rows] for name, rows in zip(self.conditions, shown, strict=True)})
        with whole_file(to) as file:
            sheet.save(file, format="PNG")

    def save_reference_sheet(self, to: Path) -> None:
        """The first held-out films, for the eye to compare with."""
        shown = self.plan.only(self.plan.places < SHEET_COLUMNS)
        self.save_sheet(self.held_out.images(shown.rows), shown.labels, to)

    def _plan_of(self, per_condition: int) -> GenerationPlan:
        return self.plan.only(self.plan.places < per_condition)

    def _reference_of(self, per_condition: int) -> LabelledFeatures:
        """Features of the held-out films of a rung; what metrics derive from them is kept.

        A film stands for each of its conditions, but once among all: repeats would bias what compares films in pairs.
        """
        if per_condition not in self._references:
            plan = self._plan_of(per_condition)
            films, place = np.unique(plan.rows, return_inverse=True)
            shown: list[tuple[str, ...]] = [()] * len(films)
            for film, label in zip(place, plan.labels, strict=True):
                shown[film] += label
            self._references[per_condition] = LabelledFeatures(self.held_out_features[films], shown)
        return self._references[per_condition]

    def _features_at(self, adapter: Path | None, config: EvaluationConfig) -> tuple[NDArray[np.float32], Films]:
        """Features of a rung's images, and the images of its sheet; no image is extracted twice."""
        plan = self._plan_of(config.images_per_condition)
        sheet = plan.places < SHEET_COLUMNS
        sheets: list[Films] = []

        def compute() -> NDArray[np.float32]:
            known, earlier_features = self._features_of_an_earlier_rung(adapter, config)
            features = np.empty((len(plan), self.extractor.dim), np.float32)
            features[known], (features[~known], shown) = (
                earlier_features,
                self._draw(adapter, config, wanted=~known, shown=sheet),
            )
            sheets.append(shown)
            return features

        features = self.features.get_or_compute(self.generated_key(adapter, plan, config), compute)
        nothing = np.zeros(len(sheet), bool)
        return features, sheets[0] if sheets else self._draw(adapter, config, wanted=nothing, shown=sheet)[1]

    def _features_of_an_earlier_rung(
        self, adapter: Path | None, config: EvaluationConfig
    ) -> tuple[Chosen, NDArray[np.float32]]:
        """Which of a rung's images an earlier rung of the same weights and steps has extracted, and their features."""
        places = self._plan_of(config.images_per_condition).places
        for count in earlier_image_counts(self.evaluation, config.images_per_condition):
            features = self.features.get(self.generated_key(adapter, self._plan_of(count), config))
            if features is not None:
                return places < count, features
        return np.zeros(len(places), bool), np.empty((0, self.extractor.dim), np.float32)

    def _draw(
        self, adapter: Path | None, config: EvaluationConfig, *, wanted: Chosen, shown: Chosen
    ) -> tuple[NDArray[np.float32], Films]:
        """Generate those images of a rung that are wanted or shown: features of the former, pixels of the latter."""
        needed = wanted | shown
        plan = self._plan_of(config.images_per_condition).only(needed)
        job = FilmJob(adapter=adapter, plan=plan, shown=shown[needed], config=config)
        helpers = [helper(actor, job, self.device) for actor in self._helpers]
        parts = made_together(lambda batches: self._make(job, batches), helpers, job.num_batches)
        with closing(parts):  # helpers are no longer asked where features fail
            return extract_and_keep(parts, self.extractor, wanted[needed])

    def _make(self, job: FilmJob, batches: range) -> Iterator[Drawn]:
        films = self.generate(self.adapted(job.adapter), job.plan, job.config, batches)
        return drawn(films, job.shown_in(batches))

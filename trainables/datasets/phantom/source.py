"""The phantom as a data set."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from functools import cached_property
from typing import ClassVar, Self

import numpy as np

from trainables.datasets.base import (
    CONDITIONS,
    SPLIT_SHARES,
    SPLITS,
    ImageTextSample,
    ImageTextSource,
    SourceOptions,
    require_resolution,
    require_split,
)
from trainables.datasets.captions import paper_template
from trainables.datasets.phantom.film import draw_film
from trainables.datasets.phantom.masks import Region, finding_masks
from trainables.datasets.phantom.patients import Exam, Patient, draw_exams, draw_patient

NUM_FINGERPRINTED = 8
MIN_PATIENTS = 10
DEFAULT_PATIENTS = 600


FOR_COLLECTIONS = ("caption", "with_age", "with_sex", "rules", "sizes", "num_train", "fit", "max_rejects")


class PhantomSource(ImageTextSource):
    """Generated frontal chest radiographs with the six conditions of `CONDITIONS`.

    Attributes:
        num_patients: how many patients; each has one to four films, 1.9 on average.
        resolution_px: side of the images, a multiple of 8 from 64.
        seed: another seed gives other patients.
        with_view: name the view in the prompts.

    Raises:
        ValueError: fewer than ten patients, or a wrong resolution.
    """

    name: ClassVar[str] = "phantom"

    def __init__(self, *, num_patients: int, resolution_px: int = 64, seed: int = 0, with_view: bool = False) -> None:
        if num_patients < MIN_PATIENTS:
            raise ValueError(
                f"`num_patients` must be at least {MIN_PATIENTS}, but got {num_patients}. "
                "Several hundred fill every condition of every split."
            )
        self.conditions = CONDITIONS
        self.resolution_px = require_resolution(resolution_px)
        self.num_patients = num_patients
        self.seed = seed
        self.with_view = with_view
        self.prompts = paper_template(with_view=with_view)

    @classmethod
    def create(cls, options: SourceOptions) -> Self:
        """Generate `num_patients`, 600 if it is not given; a phantom has no root and always its six conditions."""
        unknown = ("root", "conditions", "bits", "grey_range", "window", "label_map")
        for name, value in ((name, getattr(options, name)) for name in unknown):
            if value is not None:
                raise ValueError(f"`{name}` must be left out for the phantom, but got {value}. Remove it.")
        plain = SourceOptions()
        for name in FOR_COLLECTIONS:
            if getattr(options, name) != getattr(plain, name):
                raise ValueError(f"`{name}` must be left out for the phantom, but got another. It is for collections.")
        return cls(
            num_patients=DEFAULT_PATIENTS if options.num_patients is None else options.num_patients,
            resolution_px=options.resolution_px,
            seed=options.seed,
            with_view=options.with_view,
        )

    def samples(self, split: str) -> Iterator[ImageTextSample]:
        """The films of the split's patients, in the order of the patients' numbers."""
        for patient in self._patients[require_split(split)]:
            for exam in draw_exams(patient):
                yield self._sample(exam)

    def finding_masks(self, split: str) -> Iterator[dict[str, Region]]:
        """Where the findings of each film of `samples(split)` lie, in the same order: condition to bool[H, W]."""
        for patient in self._patients[require_split(split)]:
            for exam in draw_exams(patient):
                yield finding_masks(exam, self.resolution_px)

    def num_samples(self, split: str) -> int:
        """Films in the split."""
        return sum(patient.num_images for patient in self._patients[require_split(split)])

    def fingerprint(self) -> str:
        """Hash of the settings and of the first few films, so that another way of drawing changes it too."""
        digest = hashlib.sha256(f"{self.num_patients}/{self.resolution_px}/{self.seed}/{self.with_view}".encode())
        for number in range(NUM_FINGERPRINTED):
            sample = self._sample(draw_exams(draw_patient(self.seed, number))[0])
            digest.update(f"{sample.prompt}/{sample.conditions}/{sample.age}/{sample.view}".encode())
            digest.update(sample.image.tobytes())
        return digest.hexdigest()

    @cached_property
    def _patients(self) -> dict[str, list[Patient]]:
        """The patients of each split: the same shares of each main finding, so that small phantoms fill every split."""
        groups: dict[str, list[Patient]] = {condition: [] for condition in CONDITIONS}
        for number in range(self.num_patients):
            patient = draw_patient(self.seed, number)
            groups[patient.findings[0]].append(patient)
        patients: dict[str, list[Patient]] = {split: [] for split in SPLITS}
        for group in groups.values():
            for split, members in _divided(group).items():
                patients[split] += members
        return {split: sorted(members, key=lambda patient: patient.number) for split, members in patients.items()}

    def _sample(self, exam: Exam) -> ImageTextSample:
        return ImageTextSample(
            image=draw_film(exam, self.resolution_px),
            prompt=self.prompts.prompt(exam.findings, view=exam.view),
            conditions=exam.findings,
            patient_id=exam.patient.patient_id,
            image_id=exam.image_id,
            age=exam.patient.age,
            sex=exam.patient.sex,
            view=exam.view,
        )


def _divided(group: list[Patient]) -> dict[str, list[Patient]]:
    """One group in the shares of the splits; with three patients or more, none goes empty."""
    order = sorted(group, key=lambda patient: hashlib.sha256(patient.patient_id.encode()).digest())
    held_out = [max(1, round(share * len(order))) for share in SPLIT_SHARES[1:]]
    ends = np.cumsum([max(0, len(order) - sum(held_out)), *held_out])
    starts = [0, *ends[:-1]]
    return {split: order[start:end] for split, start, end in zip(SPLITS, starts, ends, strict=True)}

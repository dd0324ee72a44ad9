"""What every data set must hold before it may be written."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Sequence

import numpy as np

from trainables.datasets.base import ImageTextSample
from trainables.datasets.captions import PromptTemplate


class SampleChecker:
    """Checks and hashes the samples of one source while they pass by.

    Args:
        resolution_px: side that they must have.
        prompts: how their captions must be made.
    """

    def __init__(self, resolution_px: int, prompts: PromptTemplate) -> None:
        self._resolution_px, self._prompts = resolution_px, prompts
        self._hash = hashlib.sha256()
        self._seen: set[str] = set()
        self._split_of_patient: dict[str, str] = {}
        self._conditions: Counter[tuple[str, str]] = Counter()
        self._images: Counter[str] = Counter()

    @property
    def num_seen(self) -> int:
        """Samples checked so far."""
        return len(self._seen)

    @property
    def num_samples(self) -> dict[str, int]:
        """Samples checked so far, by split."""
        return dict(self._images)

    def fingerprint(self) -> str:
        """Hash of all samples so far: split, pixels, texts and order."""
        return self._hash.hexdigest()

    def add(self, sample: ImageTextSample, split: str) -> None:
        """Check one sample and count it.

        Raises:
            ValueError: its size is wrong, its id was there before, its patient is in another split, or its
                prompt is not what the source's template says.
        """
        self._require_size(sample)
        self._require_new(sample)
        self._require_one_split(sample, split)
        self._require_caption(sample)
        self._images[split] += 1
        self._conditions.update((split, condition) for condition in sample.conditions)
        self._update_hash(sample, split)

    def require_filled(self, split: str, conditions: Sequence[str]) -> None:
        """Check that the split holds every condition of the source.

        Args:
            split: the split.
            conditions: those of the source.

        Raises:
            ValueError: the split or one of its conditions is empty.
        """
        empty = [condition for condition in conditions if not self._conditions[split, condition]]
        if not self._images[split] or empty:
            what = f"no image with {', '.join(empty)}" if self._images[split] else "no image at all"
            raise ValueError(
                f"`{split}` must hold images of every condition, but got {what}. "
                "Give more images or patients, or leave the condition out."
            )

    def _require_size(self, sample: ImageTextSample) -> None:
        side = self._resolution_px
        if sample.image.shape != (side, side):
            raise ValueError(
                f"`image` must be {side} x {side} px, but got {list(sample.image.shape)} for {sample.image_id}. "
                "Resize it in the source."
            )

    def _require_new(self, sample: ImageTextSample) -> None:
        if sample.image_id in self._seen:
            raise ValueError(f"`image_id` must be unique, but got {sample.image_id!r} twice. Rename one of the images.")
        self._seen.add(sample.image_id)

    def _require_one_split(self, sample: ImageTextSample, split: str) -> None:
        first = self._split_of_patient.setdefault(sample.patient_id, split)
        if first != split:
            raise ValueError(
                f"`patient_id` must be in one split, but got {sample.patient_id!r} in {first} and in {split}. "
                "Split by patient."
            )

    def _require_caption(self, sample: ImageTextSample) -> None:
        made = self._prompts.prompt(
            sample.conditions, view=sample.view, age=sample.age, sex=sample.sex, text=sample.prompt
        )
        if sample.prompt != made:
            raise ValueError(
                f"`prompt` must be made by the source's template, {made!r}, but got {sample.prompt!r} for "
                f"{sample.image_id}. Give the source the template that its captions follow, or `FREE_TEXT`."
            )

    def _update_hash(self, sample: ImageTextSample, split: str) -> None:
        texts = (split, sample.prompt, sample.conditions, sample.patient_id, sample.image_id)
        self._hash.update(json.dumps((*texts, sample.age, sample.sex, sample.view, sample.unknown)).encode())
        self._hash.update(np.ascontiguousarray(sample.image).data)

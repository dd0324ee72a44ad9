"""Prepared data sets, as they are read."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from trainables.datasets.base import SPLITS, require_split
from trainables.datasets.captions import PromptTemplate
from trainables.datasets.rules import LabelRules
from trainables.datasets.tensors import FilmFile

FORMAT = 3
CARD = "dataset.json"


class DataChangedError(RuntimeError):
    """Films are others than those that a sweep began with."""


@dataclass(frozen=True, kw_only=True)
class PreparedDataset:
    """A complete data set on disk."""

    folder: Path
    """Where it lies."""
    name: str
    """The name of its source, such as `nih_cxr14`."""
    fingerprint: str
    """Hash of all samples: pixels, prompts, findings, patients, order."""
    source_fingerprint: str
    """What the source's `fingerprint()` said when the data set was written."""
    conditions: tuple[str, ...]
    """The findings to evaluate by, in the order of its tables."""
    prompts: PromptTemplate
    """How its captions are made, and all prompts that are to be like them."""
    rules: LabelRules
    """How labels, texts and splits of its collection were read."""
    resolution_px: int
    """Side of its square films."""
    num_samples: Mapping[str, int]
    """Films by split."""
    said: tuple[str, ...] = ()
    """What was understood, merged and left out when it was prepared, a sentence each."""

    @staticmethod
    def open(folder: Path) -> PreparedDataset:
        """Open a folder that `write_dataset` made.

        Raises:
            FileNotFoundError: it is not such a folder.
            ValueError: it is of another format.
        """
        card = folder / CARD
        if not card.is_file():
            raise FileNotFoundError(
                f"`path` must be a prepared data set, but got {folder}, which has no {CARD}. "
                "Make one with `python -m sweep.prepare`."
            )
        content = json.loads(card.read_text())
        if content["format"] != FORMAT:
            raise ValueError(
                f"`format` of a prepared data set must be {FORMAT}, but got {content['format']} in {card}. "
                "Prepare it again."
            )
        del content["format"]
        read = {
            "conditions": tuple(content["conditions"]),
            "prompts": PromptTemplate(**content["prompts"]),
            "rules": LabelRules(**content["rules"]),
            "said": tuple(content.get("said", ())),
        }
        return PreparedDataset(folder=folder, **{**content, **read})

    @staticmethod
    def expected(folder: Path, fingerprint: str | None) -> PreparedDataset:
        """Open the data set that a sweep began with; None: whatever is there.

        Raises:
            DataChangedError: it is another one, or gone.
            FileNotFoundError, ValueError: as `open`, where it may be any.
        """
        try:
            dataset = PreparedDataset.open(folder)
            came = dataset.fingerprint
        except (FileNotFoundError, ValueError):
            if fingerprint is None:
                raise
            came = "none that can be read"
        if fingerprint not in (None, came):
            raise DataChangedError(
                f"`data set` must be the one that the sweep began with, {fingerprint}, but got {came} in {folder}. "
                "Bring the first one back, and go on; or start another sweep."
            )
        return dataset

    def split(self, name: str) -> PreparedSplit:
        """The images and texts of `train`, `validation` or `test`."""
        return PreparedSplit(self.folder / f"{require_split(name)}.arrow", self.resolution_px)

    def require_sound(self) -> None:
        """Read all films, and refuse the data set where one is not as it was written.

        Raises:
            DamagedError: one is not.
            ValueError: a file is not complete.
        """
        for name in SPLITS:
            self.split(name).require_sound()

    def summary(self) -> dict[str, dict[str, int]]:
        """Counts of images, patients and each condition, by split."""
        return {name: self._summary_of(self.split(name)) for name in SPLITS}

    def labels(self) -> dict[str, Counter[str]]:
        """How many films of each split show each finding, those too rare to evaluate by included."""
        return {name: self.split(name).num_with() for name in SPLITS}

    def _summary_of(self, split: PreparedSplit) -> dict[str, int]:
        counts = split.num_with()
        return {
            "images": len(split),
            "patients": len(set(split.patient_ids)),
            **{condition: counts[condition] for condition in self.conditions},
        }


class PreparedSplit:
    """One split, memory-mapped: opening it reads no pixels, and workers of one machine share them.

    Args:
        path: the Arrow file.
        resolution_px: side of the images.
    """

    def __init__(self, path: Path, resolution_px: int) -> None:
        self.path = path
        self._side = resolution_px
        self._films = FilmFile(path, resolution_px)

    def __len__(self) -> int:
        return len(self._films)

    @property
    def resolution_px(self) -> int:
        """Side of the images."""
        return self._side

    def __reduce__(self) -> tuple[type[PreparedSplit], tuple[Path, int]]:
        """Pickle the path, never the pixels: a worker maps the file anew."""
        return PreparedSplit, (self.path, self._side)

    def require_sound(self) -> None:
        """Read all of it.

        Raises:
            DamagedError: something is not as it was written.
        """
        self._films.require_all()

    def image(self, index: int) -> NDArray[np.uint8]:
        """One image, uint8[H, W], a read-only view of the file."""
        if not 0 <= index < len(self):
            raise IndexError(f"`index` must be in [0, {len(self)}), but got {index}")
        return self._films.image(index)

    def images(self, indices: Sequence[int] | NDArray[np.int64]) -> NDArray[np.uint8]:
        """Copies of several images, uint8[n, H, W]."""
        batch = np.empty((len(indices), self._side, self._side), np.uint8)
        for row, index in enumerate(indices):
            batch[row] = self.image(int(index))
        return batch

    @cached_property
    def prompts(self) -> list[str]:
        """The prompt of every image."""
        return self._films.column("prompt")

    @cached_property
    def patient_ids(self) -> list[str]:
        """The patient of every image."""
        return self._films.column("patient_id")

    @cached_property
    def image_ids(self) -> list[str]:
        """The name of every image in its source."""
        return self._films.column("image_id")

    @cached_property
    def conditions(self) -> list[tuple[str, ...]]:
        """The findings of every image."""
        return [tuple(findings) for findings in self._films.column("conditions")]

    @cached_property
    def ages(self) -> list[int | None]:
        """Age in years of every image's patient, where known."""
        return self._films.column("age")

    @cached_property
    def sexes(self) -> list[str | None]:
        """ "F", "M" or None for every image."""
        return self._films.column("sex")

    @cached_property
    def views(self) -> list[str | None]:
        """ "PA", "AP" or None for every image."""
        return self._films.column("view")

    @cached_property
    def unknown(self) -> list[tuple[str, ...]]:
        """The findings of every image that may be there or not."""
        return [tuple(findings) for findings in self._films.column("unknown")]

    def num_with(self) -> Counter[str]:
        """How many images show each finding."""
        return Counter(finding for findings in self.conditions for finding in findings)

    def indices_with(self, condition: str) -> NDArray[np.int64]:
        """Positions of the images with this finding, ascending."""
        return np.array([i for i, findings in enumerate(self.conditions) if condition in findings], np.int64)

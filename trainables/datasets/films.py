"""Films in files, with a table of their labels: what all such data sets have in common."""

from __future__ import annotations

import difflib
import hashlib
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Self

from trainables.datasets.base import (
    SPLITS,
    ImageTextSample,
    ImageTextSource,
    SourceOptions,
    require_resolution,
    require_split,
    split_of_patient,
)
from trainables.datasets.captions import paper_template
from trainables.datasets.images import read_grey
from trainables.datasets.labels import FilmLabels, LabelColumns

MIN_FILMS = 5
"""Of a condition in each split, unless the user names the conditions: below that no statistic means anything."""
NUM_NAMED = 3
"""How many of many offenders an error message names."""


@dataclass(frozen=True, kw_only=True)
class FilmTable:
    """One way in which a data set is laid out.

    Args:
        pattern: name of the label file, or a pattern of names, of which the last by name is read.
        columns: of the label file.
        image_folders: patterns of the folders in which the images lie; none where the label file gives their paths.
    """

    pattern: str
    columns: LabelColumns
    image_folders: tuple[str, ...] = ()

    def label_file(self, root: Path) -> Path | None:
        """The label file, if the folder has one."""
        return max(root.glob(self.pattern), default=None)

    def films(self, root: Path, labels: Path) -> list[Film]:
        """The films of a label file, in its order."""
        paths = {path.name: path for folder in self.image_folders for path in root.glob(f"{folder}/*")}
        return [Film(path=paths.get(row.file, root / row.file), labels=row) for row in self.columns.read(labels)]


@dataclass(frozen=True, kw_only=True, slots=True)
class Film:
    """A file with what is known of it."""

    path: Path
    labels: FilmLabels

    @property
    def image_id(self) -> str:
        """Name of the film: that of its file without the ending."""
        return self.path.stem


class FilmTableSource(ImageTextSource):
    """Films in files with a table of labels, split by the hash of the patient whatever the table says.

    A data set is a subclass with a name, a title and the layouts that it comes in.

    Args:
        root: the folder with the label file.
        resolution_px: side of the images, by a plain Lanczos resize.
        seed: another seed gives another split.
        conditions: findings to evaluate by; left out, all with at least five films in every split.
        with_view: name the view in the prompts.

    Raises:
        FileNotFoundError: the folder, its label file or an image is missing.
        ValueError: a column is missing, a split is empty, or a condition does not occur in every split.
    """

    title: ClassVar[str]
    """What messages call the data set."""
    tables: ClassVar[tuple[FilmTable, ...]]
    """The layouts it comes in; the first whose label file is there is read."""

    def __init__(
        self,
        *,
        root: Path,
        resolution_px: int = 64,
        seed: int = 0,
        conditions: Sequence[str] | None = None,
        with_view: bool = False,
    ) -> None:
        self.root = root
        self.resolution_px = require_resolution(resolution_px)
        self.with_view = with_view
        self.prompts = paper_template(with_view=with_view)
        self.films = _by_split(self.read_films(root), seed)
        counts = _counts(self.films)
        self.conditions = _evaluable(counts, root) if conditions is None else _require_occurring(conditions, counts)

    @classmethod
    def create(cls, options: SourceOptions) -> Self:
        """Read the films under `root`."""
        if options.root is None:
            raise ValueError(f"`root` must be the folder of {cls.title}, but got none. Give it with --root DIR.")
        if options.num_patients is not None:
            raise ValueError(
                f"`num_patients` must be left out for {cls.name}, but got {options.num_patients}. "
                "It is for generated patients."
            )
        return cls(
            root=options.root,
            resolution_px=options.resolution_px,
            seed=options.seed,
            conditions=options.conditions,
            with_view=options.with_view,
        )

    @classmethod
    def read_films(cls, root: Path) -> list[Film]:
        """All rows of the label file, with the image file of each.

        Args:
            root: a folder in one of the layouts.

        Raises:
            FileNotFoundError: the folder, the label file or image files are missing.
            ValueError: the label file lacks a column or has no rows.
        """
        if not root.is_dir():
            raise FileNotFoundError(f"`root` must be a folder of {cls.title}, but got {root}, which is none.")
        for table in cls.tables:
            labels = table.label_file(root)
            if labels is not None:
                return _require_files(table.films(root, labels), labels)
        names = [table.pattern for table in cls.tables]
        raise FileNotFoundError(
            f"`root` must hold {' or '.join(names)}, but got {root} with none. "
            "Give the folder that the label file lies in."
        )

    def samples(self, split: str) -> Iterator[ImageTextSample]:
        """The films of the split in the order of the label file."""
        for film in self.films[require_split(split)]:
            known = film.labels
            yield ImageTextSample(
                image=read_grey(film.path, self.resolution_px),
                prompt=self.prompts.prompt(known.findings, view=known.view),
                conditions=known.findings,
                patient_id=known.patient_id,
                image_id=film.image_id,
                age=known.age,
                sex=known.sex,
                view=known.view,
            )

    def num_samples(self, split: str) -> int:
        """Films in the split."""
        return len(self.films[require_split(split)])

    def fingerprint(self) -> str:
        """Hash of the settings, the labels, the split and the bytes of every image file."""
        digest = hashlib.sha256(repr((self.resolution_px, self.with_view, self.conditions)).encode())
        for split in SPLITS:
            for film in self.films[split]:
                known = film.labels
                row = (split, film.image_id, known.patient_id, known.findings, known.age, known.sex, known.view)
                digest.update(repr(row).encode())
                digest.update(film.path.read_bytes())
        return digest.hexdigest()


def _by_split(films: Sequence[Film], seed: int) -> dict[str, list[Film]]:
    split_films: dict[str, list[Film]] = {split: [] for split in SPLITS}
    for film in films:
        split_films[split_of_patient(film.labels.patient_id, seed)].append(film)
    empty = [split for split, members in split_films.items() if not members]
    if empty:
        num_patients = len({film.labels.patient_id for film in films})
        raise ValueError(
            f"`train`, `validation` and `test` must each hold a patient, but got none in {', '.join(empty)} from "
            f"{num_patients} patients. Give more patients, or another seed."
        )
    return split_films


def _counts(films: Mapping[str, Sequence[Film]]) -> dict[str, Counter[str]]:
    """How many films of each split show each finding."""
    return {
        split: Counter(finding for film in members for finding in film.labels.findings)
        for split, members in films.items()
    }


def _known(counts: Mapping[str, Counter[str]]) -> list[str]:
    return sorted(set().union(*counts.values()))


def _evaluable(counts: Mapping[str, Counter[str]], root: Path) -> tuple[str, ...]:
    frequent = [name for name in _known(counts) if min(counts[split][name] for split in SPLITS) >= MIN_FILMS]
    if not frequent:
        raise ValueError(
            f"`root` must hold a finding with {MIN_FILMS} films in every split, but got none in {root}. "
            "Give more patients, or name the conditions to evaluate by."
        )
    return tuple(frequent)


def _require_occurring(conditions: Sequence[str], counts: Mapping[str, Counter[str]]) -> tuple[str, ...]:
    for condition in conditions:
        _require_known(condition, _known(counts))
        empty = [split for split in SPLITS if not counts[split][condition]]
        if empty:
            raise ValueError(
                f"`conditions` must occur in every split, but got {condition!r}, which has no film in "
                f"{', '.join(empty)}. Give more patients or leave it out."
            )
    return tuple(conditions)


def _require_known(condition: str, known: Sequence[str]) -> None:
    if condition not in known:
        nearest = difflib.get_close_matches(condition, known, n=3, cutoff=0.3) or known
        raise ValueError(f"`conditions` must occur in the data, but got {condition!r}. Nearest: {', '.join(nearest)}.")


def _require_files(films: list[Film], labels: Path) -> list[Film]:
    missing = [film.path.name for film in films if not film.path.is_file()]
    if missing:
        raise FileNotFoundError(
            f"`{labels.name}` must name only images that are there, but got {len(missing)} of {len(films)} without "
            f"a file: {_some(missing)}. Complete the folder {labels.parent}, or remove the rows."
        )
    return films


def _some(names: Sequence[str]) -> str:
    more = len(names) - NUM_NAMED
    return ", ".join(names[:NUM_NAMED]) + (f" and {more} more" if more > 0 else "")

"""NIH ChestX-ray14: the official release, and folders with a metadata.csv.

The official release is a folder with `Data_Entry_2017.csv` (or `Data_Entry_2017_v2020.csv`) and PNGs under `images/`
or `images_001/images/` and so on. The other layout is a `metadata.csv` with the columns file, patient_id, age, sex,
view and labels beside the files that it names.

Source: Wang et al., ChestX-ray8, CVPR 2017; nihcc.app.box.com/v/ChestXray-NIHCC.
"""

from __future__ import annotations

import csv
import difflib
import hashlib
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import ClassVar, Self

from trainables.datasets.base import (
    SEXES,
    SPLITS,
    VIEWS,
    ImageTextSample,
    ImageTextSource,
    SourceOptions,
    require_resolution,
    require_split,
    split_of_patient,
)
from trainables.datasets.captions import paper_template
from trainables.datasets.images import read_grey

WORDS = {"Effusion": "Pleural Effusion", "Pleural_Thickening": "Pleural Thickening"}
"""Where the project's words differ from NIH's."""
METADATA = "metadata.csv"
OFFICIAL = "Data_Entry_2017*.csv"
IMAGE_FOLDERS = (".", "images", "images_*", "images_*/images")
MIN_FILMS = 5
"""Of a condition in each split, unless the user names the conditions: below that no statistic means anything."""
NUM_NAMED = 3
"""How many of many offenders an error message names."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Film:
    """One row of the label file."""

    path: Path
    image_id: str
    patient_id: str
    findings: tuple[str, ...]
    age: int | None
    sex: str | None
    view: str | None


class NihCxr14Source(ImageTextSource):
    """Frontal films of NIH ChestX-ray14, split by the hash of the patient whatever the label file says.

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

    name: ClassVar[str] = "nih_cxr14"

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
        self._films = _by_split(read_films(root), seed)
        self.conditions = self._evaluable() if conditions is None else self._require_occurring(conditions)

    @classmethod
    def create(cls, options: SourceOptions) -> Self:
        """Read the films under `root`."""
        if options.root is None:
            raise ValueError("`root` must be the folder of NIH ChestX-ray14, but got none. Give it with --root DIR.")
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

    def samples(self, split: str) -> Iterator[ImageTextSample]:
        """The films of the split in the order of the label file."""
        for film in self._films[require_split(split)]:
            yield ImageTextSample(
                image=read_grey(film.path, self.resolution_px),
                prompt=self.prompts.prompt(film.findings, view=film.view),
                conditions=film.findings,
                patient_id=film.patient_id,
                image_id=film.image_id,
                age=film.age,
                sex=film.sex,
                view=film.view,
            )

    def num_samples(self, split: str) -> int:
        """Films in the split."""
        return len(self._films[require_split(split)])

    def fingerprint(self) -> str:
        """Hash of the settings, the labels, the split and the bytes of every image file."""
        digest = hashlib.sha256(repr((self.resolution_px, self.with_view, self.conditions)).encode())
        for split in SPLITS:
            for film in self._films[split]:
                row = (split, film.image_id, film.patient_id, film.findings, film.age, film.sex, film.view)
                digest.update(repr(row).encode())
                digest.update(film.path.read_bytes())
        return digest.hexdigest()

    @cached_property
    def _counts(self) -> dict[str, Counter[str]]:
        return {
            split: Counter(finding for film in films for finding in film.findings)
            for split, films in self._films.items()
        }

    def _evaluable(self) -> tuple[str, ...]:
        known = sorted(set().union(*self._counts.values()))
        frequent = [name for name in known if min(self._counts[split][name] for split in SPLITS) >= MIN_FILMS]
        if not frequent:
            raise ValueError(
                f"`root` must hold a finding with {MIN_FILMS} films in every split, but got none in {self.root}. "
                "Give more patients, or name the conditions to evaluate by."
            )
        return tuple(frequent)

    def _require_occurring(self, conditions: Sequence[str]) -> tuple[str, ...]:
        known = sorted(set().union(*self._counts.values()))
        for condition in conditions:
            empty = [split for split in SPLITS if not self._counts[split][condition]]
            if condition not in known:
                nearest = difflib.get_close_matches(condition, known, n=3, cutoff=0.3) or known
                raise ValueError(
                    f"`conditions` must occur in the data, but got {condition!r}. Nearest: {', '.join(nearest)}."
                )
            if empty:
                raise ValueError(
                    f"`conditions` must occur in every split, but got {condition!r}, which has no film in "
                    f"{', '.join(empty)}. Give more patients or leave it out."
                )
        return tuple(conditions)


def read_films(root: Path) -> list[Film]:
    """All rows of the label file, with the image file of each.

    Args:
        root: a folder of either layout.

    Raises:
        FileNotFoundError: the folder, the label file or image files are missing.
        ValueError: the label file lacks a column or has no rows.
    """
    if not root.is_dir():
        raise FileNotFoundError(f"`root` must be a folder of NIH ChestX-ray14, but got {root}, which is none.")
    labels, layout = _label_file(root)
    rows = _read_rows(labels, layout.columns)
    films = [layout.film(row) for row in rows]
    missing = [film.path.name for film in films if not film.path.is_file()]
    if missing:
        raise FileNotFoundError(
            f"`{labels.name}` must name only images that are there, but got {len(missing)} of {len(films)} without "
            f"a file: {_some(missing)}. Complete the folder {root}, or remove the rows."
        )
    return films


@dataclass(frozen=True, kw_only=True)
class _Layout:
    """How one kind of label file is read."""

    columns: tuple[tuple[str, ...], ...]
    """Required columns, each with its other spellings."""
    film: Callable[[Mapping[str, str]], Film]


def _label_file(root: Path) -> tuple[Path, _Layout]:
    if (root / METADATA).is_file():
        return root / METADATA, _metadata_layout(root)
    official = sorted(root.glob(OFFICIAL))
    if official:
        # The release of 2020 corrects labels of the first one.
        return official[-1], _official_layout(root)
    raise FileNotFoundError(
        f"`root` must hold {METADATA} or {OFFICIAL}, but got {root} with neither. "
        "Give the folder that the label file lies in."
    )


def _metadata_layout(root: Path) -> _Layout:
    def film(row: Mapping[str, str]) -> Film:
        path = root / row["file"]
        return _film(path, path.stem, (row["patient_id"], row["labels"]), (row["age"], row["sex"], row["view"]))

    columns = ("file", "patient_id", "age", "sex", "view", "labels")
    return _Layout(columns=tuple((column,) for column in columns), film=film)


def _official_layout(root: Path) -> _Layout:
    paths = {path.name: path for folder in IMAGE_FOLDERS for path in root.glob(f"{folder}/*.png")}

    def film(row: Mapping[str, str]) -> Film:
        name = row["Image Index"]
        sex = row.get("Patient Gender") or row.get("Patient Sex") or row.get("Sex") or ""
        path = paths.get(name, root / "images" / name)
        known = (row["Patient ID"], row["Finding Labels"])
        return _film(path, path.stem, known, (row["Patient Age"], sex, row["View Position"]))

    columns = (
        ("Image Index",),
        ("Finding Labels",),
        ("Patient ID",),
        ("Patient Age",),
        ("Patient Gender", "Patient Sex", "Sex"),
        ("View Position",),
    )
    return _Layout(columns=columns, film=film)


def _film(path: Path, image_id: str, known: tuple[str, str], about: tuple[str, str, str]) -> Film:
    patient_id, labels = known
    age, sex, view = about
    return Film(
        path=path,
        image_id=image_id,
        patient_id=patient_id.strip(),
        findings=_findings(labels, path),
        age=_age(age),
        sex=sex if sex in SEXES else None,
        view=view if view in VIEWS else None,
    )


def _findings(labels: str, path: Path) -> tuple[str, ...]:
    words = [WORDS.get(label.strip(), label.strip()) for label in labels.split("|") if label.strip()]
    if not words:
        raise ValueError(f"`labels` must name a finding or 'No Finding', but got none for {path.name}. Remove the row.")
    return tuple(words)


def _age(text: str) -> int | None:
    """Years; the first release writes 058Y, and months and days for infants."""
    digits, unit = text.strip().rstrip("YMD"), text.strip()[-1:]
    if not digits.isdigit():
        return None
    return 0 if unit in ("M", "D") else int(digits)


def _read_rows(labels: Path, columns: Sequence[Sequence[str]]) -> list[dict[str, str]]:
    with labels.open(newline="", encoding="utf-8-sig") as file:
        reader = csv.DictReader(file)
        header = reader.fieldnames or []
        missing = [spellings[0] for spellings in columns if not set(spellings) & set(header)]
        if missing:
            raise ValueError(
                f"`{labels.name}` must have the columns {', '.join(spellings[0] for spellings in columns)}, "
                f"but got no {', '.join(missing)}. Use the label file as it was released."
            )
        rows = list(reader)
    if not rows:
        raise ValueError(f"`{labels.name}` must have at least one row, but got none in {labels}. Use the whole file.")
    return rows


def _by_split(films: Sequence[Film], seed: int) -> dict[str, list[Film]]:
    split_films: dict[str, list[Film]] = {split: [] for split in SPLITS}
    for film in films:
        split_films[split_of_patient(film.patient_id, seed)].append(film)
    empty = [split for split, members in split_films.items() if not members]
    if empty:
        num_patients = len({film.patient_id for film in films})
        raise ValueError(
            f"`train`, `validation` and `test` must each hold a patient, but got none in {', '.join(empty)} from "
            f"{num_patients} patients. Give more patients, or another seed."
        )
    return split_films


def _some(names: Sequence[str]) -> str:
    more = len(names) - NUM_NAMED
    return ", ".join(names[:NUM_NAMED]) + (f" and {more} more" if more > 0 else "")

"""Films in files, with a table of their labels: what all such data sets have in common."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import ClassVar, Self

from trainables.datasets.base import (
    SPLITS,
    Checked,
    ImageTextSample,
    ImageTextSource,
    SourceOptions,
    require_resolution,
    require_split,
)
from trainables.datasets.collection import Collection, CollectionReader, FilmTable
from trainables.datasets.ct_windows import window_of
from trainables.datasets.images import FilmReading, require_fit
from trainables.datasets.problems import CollectionError, Ledger
from trainables.datasets.validation import SampleChecker


class FilmTableSource(ImageTextSource):
    """Films in files with a table of labels, split by the hash of the patient whatever the table says.

    A data set is a subclass with a name, a title and the layouts that it comes in. All films are looked at when it is
    made: only together they tell which grey levels a container holds, and which pictures are in two splits.

    Attributes:
        options: of which `root`, the folder with the label file, must be given.

    Raises:
        FileNotFoundError: the folder or its label file is missing.
        CollectionError: the table or a film cannot be used; the message names the file, the line and the remedy.
        ValueError: an option is missing, or makes no sense for films.
    """

    title: ClassVar[str]
    """What messages call the data set."""
    tables: ClassVar[tuple[FilmTable, ...]]
    """The layouts it comes in; the first whose label file is there is read."""

    def __init__(self, options: SourceOptions) -> None:
        ledger = Ledger()
        collection = self._read(options, ledger)
        self.resolution_px = options.resolution_px
        self.prompts, self.rules = options.template(), collection.rules
        self.films, self.conditions = collection.films, collection.conditions
        self.said = tuple(ledger.said)
        self._reading = FilmReading(
            resolution_px=options.resolution_px,
            ranges=collection.ranges,
            fit=options.fit,
            window=window_of(options.window),
        )
        self._waiting, self._mapper = collection.waiting, options.mapper

    @classmethod
    def create(cls, options: SourceOptions) -> Self:
        """Read the films under `root`."""
        return cls(options)

    @classmethod
    def check(cls, options: SourceOptions) -> Checked:
        """Look for all problems of the films under `root`."""
        ledger = Ledger(patient=True)
        captions: list[str] = []
        try:
            collection = cls._read(options, ledger)
        except CollectionError:  # a step that no other can follow; the ledger has it
            return Checked(problems=tuple(ledger.problems), said=tuple(ledger.said))
        prompts = options.template()
        for members in collection.films.values():
            captions += [film.prompt(prompts) for film in members]
        return Checked(problems=tuple(ledger.problems), said=tuple(ledger.said), captions=tuple(captions))

    @classmethod
    def _read(cls, options: SourceOptions, ledger: Ledger) -> Collection:
        require_resolution(options.resolution_px)
        require_fit(options.fit)
        window_of(options.window)
        if options.root is None:
            raise ValueError(f"`root` must be the folder of {cls.title}, but got none. Give it with --root DIR.")
        if options.num_patients is not None:
            raise ValueError(
                f"`num_patients` must be left out for {cls.name}, but got {options.num_patients}. "
                "It is for generated patients."
            )
        root = options.root.absolute()  # a cluster's tasks run in folders of their own
        table, labels = cls._table(root)
        return CollectionReader(root, table, labels, options, ledger).read()

    @classmethod
    def _table(cls, root: Path) -> tuple[FilmTable, Path]:
        if not root.is_dir():
            raise FileNotFoundError(f"`root` must be a folder of {cls.title}, but got {root}, which is none.")
        for table in cls.tables:
            labels = table.label_file(root)
            if labels is not None:
                return table, labels
        names = [table.pattern for table in cls.tables]
        raise FileNotFoundError(
            f"`root` must hold {' or '.join(names)}, but got {root} with none. "
            "Give the folder that the label file lies in."
        )

    def samples(self, split: str) -> Iterator[ImageTextSample]:
        """The films of the split in the order of the label file, read on all cores."""
        return self.samples_after(split, 0)

    def samples_after(self, split: str, number: int) -> Iterator[ImageTextSample]:
        """The same but the first few, which are not read."""
        films = self.films[require_split(split)][number:]
        waiting = self._waiting if self._waiting and self._waiting.completed() else None
        unread = self._mapper(self._reading, [film.path for film in films if waiting is None or film.place is None])
        for film in films:
            image = next(unread) if waiting is None or film.place is None else waiting.picture(split, film.place)
            yield film.sample(self.prompts, image)

    def written(self, folder: Path) -> SampleChecker | None:
        """Name the files in which the films wait, where all of these and no others are in them."""
        films = [film for members in self.films.values() for film in members]
        num_films = {split: len(members) for split, members in self.films.items()}
        if not self._waiting or any(film.place is None for film in films) or not self._waiting.has_all(num_films):
            return None
        return self._waiting.give(folder)

    def num_samples(self, split: str) -> int:
        """Films in the split."""
        return len(self.films[require_split(split)])

    def fingerprint(self) -> str:
        """Hash of the settings, the grey levels, the labels, the split and the bytes of every image file."""
        how = self._reading
        ranges = sorted((kind.name, grey.low, grey.high) for kind, grey in how.ranges.items())
        settings = (how.resolution_px, how.fit, how.window, self.prompts, self.rules, self.conditions, ranges)
        digest = hashlib.sha256(repr(settings).encode())
        for split in SPLITS:
            for film in self.films[split]:
                known = film.labels
                about = (known.findings, known.unknown, known.age, known.sex, known.view)
                row = (split, film.image_id, known.patient_id, *about, film.caption)
                digest.update(repr(row).encode())
                digest.update(film.file_hash)
        return digest.hexdigest()

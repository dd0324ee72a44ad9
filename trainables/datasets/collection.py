"""A folder of films with a table, read, checked and split: what can be prepared, what is said of it, what is wrong."""

from __future__ import annotations

import difflib
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from trainables.datasets.base import SPLITS, SourceOptions
from trainables.datasets.captions import NUM_TOKENS
from trainables.datasets.containers import GreyRange, Kind, grey_ranges
from trainables.datasets.ct_windows import window_of
from trainables.datasets.duplicates import SAME_PICTURE, copies_to_drop, copies_to_keep, near_copies
from trainables.datasets.files import Inside
from trainables.datasets.film_files import FilmFile, PackedFilm, shown
from trainables.datasets.images import READABLE, FilmError, read_grey
from trainables.datasets.label_map import read_label_map
from trainables.datasets.labels import FilmLabels, FilmReader
from trainables.datasets.one_film import Film
from trainables.datasets.patients import known_patients
from trainables.datasets.problems import Ledger, count_of, listed
from trainables.datasets.reports import cut_texts
from trainables.datasets.rules import HASH, OWN, LabelRules
from trainables.datasets.scan import PixelHash, Scan, first_look, scan_films
from trainables.datasets.splits import few_shot, splits_of
from trainables.datasets.vocabulary import Vocabulary
from trainables.datasets.waiting import WaitingFilms, waiting_films

MIN_FILMS = 5
"""The fewest films that a condition has in each split, unless the user names the conditions: below that no statistic
means anything."""
COMPARED_PX = 128
"""Side at which films that look alike are compared."""


@dataclass(frozen=True, kw_only=True)
class FilmTable:
    """One way in which a data set is laid out.

    Attributes:
        pattern: name of the label file, or a pattern of names, of which the last by name is read.
        reader: of the label file, or of the folder that the labels lie in.
        image_folders: patterns of the folders in which the images lie; none where the label file gives their paths.
    """

    pattern: str
    reader: FilmReader
    image_folders: tuple[str, ...] = ()

    def label_file(self, root: Path) -> Path | None:
        """The label file or folder, if it is there."""
        return root if self.pattern == "." else max(root.glob(self.pattern), default=None)

    def paths(self, root: Path) -> Mapping[str, Sequence[FilmFile]]:
        """Where the films of each name lie, beside those that the label file gives the path of."""
        by_name: dict[str, list[Path]] = {}
        for path in sorted({path for folder in self.image_folders for path in root.glob(f"{folder}/*")}):
            by_name.setdefault(path.name, []).append(path)
        return by_name


@dataclass(frozen=True, kw_only=True)
class Collection:
    """What was read of a folder.

    Attributes:
        films: of each split, in the order of the label file.
        ranges: black and white of each kind of container.
        conditions: findings to evaluate by.
        rules: by which its labels, texts and splits were read.
        waiting: films whose pictures were made at the first look.
    """

    films: Mapping[str, Sequence[Film]]
    ranges: dict[Kind, GreyRange]
    conditions: tuple[str, ...]
    rules: LabelRules
    waiting: WaitingFilms | None = None


@dataclass
class CollectionReader:
    """Reads one folder, step by step; a step ends with the first problem unless the ledger is patient.

    Attributes:
        root: the folder that the collection lies in.
        table: the layout of the collection.
        labels: the file with its labels.
        options: what the user said.
        ledger: takes problems and what is said.
    """

    root: Path
    table: FilmTable
    labels: Path
    options: SourceOptions
    ledger: Ledger = field(default_factory=Ledger)
    _num_films: int = 0
    _waiting: WaitingFilms | None = None

    def read(self) -> Collection:
        """The collection, if it has no problems or the ledger is patient.

        Raises:
            CollectionError: it has problems.
        """
        try:
            return self._read()
        except BaseException:
            if self._waiting:
                self._waiting.close()
            raise

    def _read(self) -> Collection:
        label_map = read_label_map(self.options.label_map, self.ledger) if self.options.label_map else {}
        vocabulary = self.table.reader.vocabulary(label_map)
        rules = self._rules()
        rows = known_patients(self.table.reader.read(self.labels, vocabulary, self.ledger, rules), self.ledger)
        self._require_used_map(vocabulary)
        self._num_films = len(rows)
        films = self._in_splits(self._with_captions(self._with_files([row for row in rows if row.findings])))
        self.ledger.settle()
        films, ranges = self._looked_at(films)
        split_films = self._by_split(films)
        counts = count_findings(split_films)
        conditions = tuple(dict.fromkeys(vocabulary.name(name) for name in self.options.conditions or ()))
        chosen = self._occurring(conditions, counts) if conditions else self._evaluable(counts)
        self._require_views(films)
        self.ledger.settle()
        split_films["train"] = self._few_shot(split_films["train"], chosen)
        return Collection(films=split_films, ranges=ranges, conditions=chosen, rules=rules, waiting=self._waiting)

    def _rules(self) -> LabelRules:
        rules, reader = self.options.rules, self.table.reader
        if rules.split == OWN and not reader.has_split:
            raise ValueError(
                "`--split own` must be of a collection that comes with a split, but got one without. Name a column of "
                "its table that has the split, or leave the option out."
            )
        if rules.split_column and not reader.has_columns:
            raise ValueError(
                f"`--split` must be {HASH} or {OWN} for this collection, whose tables have no column for it, but got "
                f"{rules.split!r}. Choose one, or bring a table of your own with the source `folder`."
            )
        if self.options.sizes is not None and rules.split != HASH:
            raise ValueError(
                f"`--sizes` must be left out where the split is given, but got both, --split {rules.split}. Leave one out."
            )
        return replace(rules, own_text=self.options.caption == "text")

    def _with_captions(self, films: Sequence[Film]) -> list[Film]:
        """The films with their own texts, where captions are such; those without text are counted and left out."""
        if self.options.template().template is not None:
            return list(films)
        with_text = [film for film in films if film.labels.text]
        if not with_text and films:
            rule = "`--caption text` must be of films that have texts of their own"
            self.ledger.refuse(rule, "none", "Choose another caption, or give the reports.", file=self.labels.name)
        elif len(with_text) < len(films):
            self.ledger.say(f"{count_of(len(films) - len(with_text), 'film')} without a text are left out.")
        texts = [film.labels.text for film in with_text]
        counter = self.options.num_tokens_of
        cut = cut_texts(texts, counter, self.ledger, most=NUM_TOKENS) if counter else texts
        return [replace(film, caption=text) for film, text in zip(with_text, cut, strict=True)]

    def _in_splits(self, films: Sequence[Film]) -> list[Film]:
        splits = splits_of([film.labels for film in films], self.options, self.ledger)
        return [replace(film, split=split) for film, split in zip(films, splits, strict=True) if split]

    def _few_shot(self, films: list[Film], conditions: Sequence[str]) -> list[Film]:
        num_train = self.options.num_train
        if num_train is None or num_train >= len(films):
            return films
        self.ledger.say(f"Of {len(films):,} training films {num_train:,} are kept, as was asked for.")
        kept = few_shot([film.labels for film in films], num_train, self.options.seed, conditions)
        return [films[position] for position in kept]

    def _require_used_map(self, vocabulary: Vocabulary) -> None:
        unused = vocabulary.unused()
        if unused and len(unused) == len(vocabulary.label_map):
            came = listed(map(repr, unused))
            self.ledger.refuse("`--label-map` must name a label of the data", came, "Mend it or leave it out.")
        elif unused:
            self.ledger.say(f"Labels of the map that no film has: {listed(map(repr, unused))}.")

    def _with_files(self, rows: Sequence[FilmLabels]) -> list[Film]:
        known = self.table.paths(self.root)
        films = [film for row in rows if (film := self._with_file(row, known))]
        self.ledger.judge(self._num_films, self.options.max_rejects)
        stems = Counter(film.image_id for film in films)
        return [
            replace(film, image_id=shown(film.path, self.root))
            if stems[film.image_id] > 1 and not film.labels.image_id
            else film
            for film in films
        ]

    @cached_property
    def _inside(self) -> Inside:
        return Inside(self.root)

    def _with_file(self, row: FilmLabels, known: Mapping[str, Sequence[FilmFile]]) -> Film | None:
        spellings = dict.fromkeys((row.file, row.file.replace("\\", "/")))
        places = known.get(row.file) or [self.root / spelling for spelling in spellings]
        named = [path for path in places if isinstance(path, PackedFilm) or self._inside.has_file(path)]
        there = [path for path in named if isinstance(path, PackedFilm) or not self._inside.leads_out(path)]
        if len(there) == 1:
            return Film(path=there[0], labels=row, image_id=row.image_id or there[0].stem)
        if there:
            rule, came = "lie in one folder only", " and ".join(shown(path, self.root) for path in there)
            remedy = "Remove or rename the others."
        elif named:
            rule, came = "be no links out of the folder", repr(row.file)
            remedy = "Put the films themselves there, as by `cp -rL`, or give the folder that they lie in as --root."
        else:
            rule, came, remedy = "be there", repr(row.file), f"Complete the folder {self.root}, or remove the rows."
        self.ledger.reject(
            f"`{row.table}` must name only images that {rule}".replace("that be", "that are"),
            came,
            remedy,
            file=row.table,
            line=row.line,
        )
        return None

    def _looked_at(self, films: Sequence[Film]) -> tuple[list[Film], dict[Kind, GreyRange]]:
        """The films whose pixels are as they should be and not in another split as well; and the ranges of all."""
        scans: list[Scan] = []
        readable = []
        for film, (scan, place) in zip(films, self._looks(films), strict=True):
            if isinstance(scan, FilmError):
                self.ledger.reject(READABLE, scan.came, scan.remedy, file=self._named(film))
                continue
            readable.append(replace(film, file_hash=scan.file, place=place))
            scans.append(scan)
        self.ledger.judge(self._num_films, self.options.max_rejects)
        self._say_rejected()
        bits, given = self.options.bits, self.options.grey_range
        ranges = grey_ranges([scan.levels for scan in scans], self.ledger, bits=bits, given=given)
        self.ledger.settle()
        try:
            return self._without_copies(readable, scans, ranges), ranges
        except FilmError as error:  # the film has changed since it was looked at
            self.ledger.refuse(READABLE, error.came, error.remedy, file=shown(error.path, self.root))
            self.ledger.stop()
            raise

    def _looks(self, films: Sequence[Film]) -> list[tuple[Scan | FilmError, int | None]]:
        """What a look at each film says, and where its picture waits; they are looked at split by split."""
        options = self.options
        order = sorted(range(len(films)), key=lambda position: SPLITS.index(films[position].split))
        self._waiting = waiting = waiting_films(options.scratch, len(films), options.resolution_px, options.template())
        names = [(self._named(films[position]), films[position].path) for position in order]
        look = first_look(options, with_pictures=waiting is not None)
        looks: dict[int, tuple[Scan | FilmError, int | None]] = {}
        for position, scan in zip(order, scan_films(names, look, options.on_film, options.mapper), strict=True):
            place, film = None, films[position]
            if isinstance(scan, Scan) and scan.picture is not None:
                if waiting:
                    place = waiting.keep(film, scan.picture)
                scan = replace(scan, picture=None)
            looks[position] = scan, place
        if waiting:
            waiting.end()
        return [looks[position] for position in range(len(films))]

    def _say_rejected(self) -> None:
        rejected = self.ledger.rejected
        if rejected:
            # The message names all of them, however many.
            named = ", ".join(
                problem.came if problem.line else f"{problem.file} ({problem.came})" for problem in rejected
            )
            verb = "is" if len(rejected) == 1 else "are"
            self.ledger.say(
                f"{count_of(len(rejected), 'film')} of {self._num_films:,} {verb} rejected, not there or not to be read: {named}."
            )

    def _without_copies(
        self, films: Sequence[Film], scans: Sequence[Scan], ranges: dict[Kind, GreyRange]
    ) -> list[Film]:
        splits = [film.split for film in films]
        pixels = self._pixels(films, scans)
        dropped = copies_to_drop(pixels, splits)
        self._say_dropped(dropped, films, splits)
        kept = [
            position for position, scan in enumerate(scans) if position not in dropped and scan.levels.kind in ranges
        ]
        left = [films[position] for position in kept]

        def small(position: int) -> NDArray[np.uint8]:
            window = window_of(self.options.window)
            return read_grey(left[position].path, COMPARED_PX, ranges, self.options.fit, window=window)

        near = near_copies([scans[p].look for p in kept], [splits[p] for p in kept], small)
        self._say_near(near, left)
        self._say_kept(copies_to_keep([pixels[p] for p in kept], [splits[p] for p in kept]), left)
        return left

    def _pixels(self, films: Sequence[Film], scans: Sequence[Scan]) -> list[bytes]:
        """What is equal for equal pixels: films that the first look does not tell apart are read again for it."""
        rough = [scan.rough for scan in scans]
        times = Counter(rough)
        doubtful = [film.path for film, look in zip(films, rough, strict=True) if times[look] > 1]
        hashes = self.options.mapper(PixelHash(window=window_of(self.options.window)), doubtful)
        return [next(hashes) if times[look] > 1 else look for look in rough]

    def _say_dropped(self, dropped: Mapping[int, int], films: Sequence[Film], splits: Sequence[str]) -> None:
        if dropped:
            pairs = [
                f"{self._named(films[gone])} ({splits[gone]}) is {self._named(films[kept])} ({splits[kept]})"
                for gone, kept in dropped.items()
            ]
            if self.options.rules.split != HASH:
                rule, remedy = "`split` must not have one picture in two of them", "Leave one of each pair out."
                self.ledger.refuse(rule, listed(pairs), remedy, file=self.labels.name)
                return
            films_are = f"{count_of(len(dropped), 'film')} {'is' if len(dropped) == 1 else 'are'}"
            self.ledger.say(f"{films_are} left out, since the same picture is in another split: {listed(pairs)}.")

    def _say_near(self, pairs: Sequence[tuple[int, int, float]], films: Sequence[Film]) -> None:
        if pairs:
            named = [f"{self._named(films[a])} and {self._named(films[b])} ({alike:.3f})" for a, b, alike in pairs]
            self.ledger.say(
                f"{count_of(len(pairs), 'pair')} of films in two splits look nearly the same (correlation of pixels at "
                f"least {SAME_PICTURE}) and are kept; look at them: {listed(named)}."
            )

    def _say_kept(self, pairs: Sequence[tuple[int, int]], films: Sequence[Film]) -> None:
        if pairs:
            named = [f"{self._named(films[other])} is {self._named(films[first])}" for first, other in pairs]
            films_are = f"{count_of(len(pairs), 'film')} {'is' if len(pairs) == 1 else 'are'}"
            self.ledger.say(f"{films_are} the same picture as another of the same split, and kept: {listed(named)}.")

    def _named(self, film: Film) -> str:
        return shown(film.path, self.root)

    def _by_split(self, films: Sequence[Film]) -> dict[str, list[Film]]:
        split_films: dict[str, list[Film]] = {split: [] for split in SPLITS}
        for film in films:
            split_films[film.split].append(film)
        empty = [split for split, members in split_films.items() if not members]
        if empty:
            num_patients = len({film.labels.patient_id for film in films})
            came = f"none in {', '.join(empty)} from {count_of(num_patients, 'patient')}"
            rule = "`train`, `validation` and `test` must each hold a patient"
            self.ledger.refuse(rule, came, "Give more patients, or another seed.")
            self.ledger.settle()
        return split_films

    def _evaluable(self, counts: Mapping[str, Counter[str]]) -> tuple[str, ...]:
        frequent = [name for name in _known(counts) if min(counts[split][name] for split in SPLITS) >= MIN_FILMS]
        if not frequent:
            rule = f"`root` must hold a finding with {MIN_FILMS} films in every split"
            remedy = "Give more patients, or name the conditions to evaluate by."
            self.ledger.refuse(rule, f"none in {self.root}", remedy)
        return tuple(frequent)

    def _occurring(self, conditions: Sequence[str], counts: Mapping[str, Counter[str]]) -> tuple[str, ...]:
        known = _known(counts)
        for condition in conditions:
            empty = [split for split in SPLITS if not counts[split][condition]]
            if condition not in known:
                nearest = difflib.get_close_matches(condition, known, n=3, cutoff=0.3) or known
                remedy = f"Nearest: {', '.join(nearest)}."
                self.ledger.refuse("`conditions` must occur in the data", repr(condition), remedy)
            elif empty:
                came = f"{condition!r}, which has no film in {', '.join(empty)}"
                remedy = "Give more patients or leave it out."
                self.ledger.refuse("`conditions` must occur in every split", came, remedy)
        return tuple(conditions)

    def _require_views(self, films: Sequence[Film]) -> None:
        without = sum(film.labels.view is None for film in films)
        if not self.options.with_view or not without:
            return
        if without == len(films):
            rule, came = "`--view-in-prompt` must have views to name", f"none in {count_of(without, 'film')}"
            self.ledger.refuse(rule, came, "Write PA or AP in the column of the view, or leave the option out.")
        self.ledger.say(f"{without:,} of {len(films):,} captions name no view, since it is not known.")


def count_findings(films: Mapping[str, Sequence[Film]]) -> dict[str, Counter[str]]:
    """How many films of each split show each finding."""
    return {
        split: Counter(finding for film in members for finding in film.labels.findings)
        for split, members in films.items()
    }


def _known(counts: Mapping[str, Counter[str]]) -> list[str]:
    return sorted(set().union(*counts.values()))

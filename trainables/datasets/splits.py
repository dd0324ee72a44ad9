"""Which split a film is in: by the hash of its patient, by sizes that are asked for, or as its collection says; never two."""

from __future__ import annotations

import hashlib
import re
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from itertools import zip_longest
from pathlib import Path
from typing import Final

from trainables.datasets.base import SPLIT_SHARES, SPLITS, SourceOptions, SplitShares, SplitSizes, split_of_patient
from trainables.datasets.labels import FilmLabels
from trainables.datasets.problems import Ledger, count_of, listed
from trainables.datasets.rows import read_rows
from trainables.datasets.rules import HASH, OWN

ALL: Final = ""
"""Stands for all films where a finding's name does for those that show it."""
TRAIN_OR_VALIDATION: Final = "train or validation"
LEFT_OUT: Final = ""
Shown = Mapping[str, Counter[str]]
Asked = Mapping[str, Mapping[str, float]]
_OF_ALL: Final[Asked] = {split: {ALL: 0} for split in (*SPLITS, LEFT_OUT)}
NAMES: Final[Mapping[str, str]] = {
    **dict.fromkeys(("train", "training"), "train"),
    **dict.fromkeys(("validation", "validate", "valid", "val", "dev"), "validation"),
    **dict.fromkeys(("test", "testing"), "test"),
    **dict.fromkeys(("trainval", "trainvalidation", "trainorvalidation"), TRAIN_OR_VALIDATION),
}
"""How collections and users call the splits, without white space, underscores and hyphens."""
ONE_SPLIT: Final = "`split` must not have a patient in two of them"


def splits_of(films: Sequence[FilmLabels], options: SourceOptions, ledger: Ledger) -> list[str]:
    """The split of each film; empty for films that no split takes.

    Args:
        films: of all patients.
        options: seed, sizes, and whose split it is.
        ledger: takes films without a split, and patients that are said to be in two.
    """
    if options.rules.split == HASH:
        if options.sizes is not None:
            sizes = _counts(options.sizes, len(films)) if isinstance(options.sizes, tuple) else options.sizes
            return sized_splits(films, sizes, options.seed, ledger)
        return [split_of_patient(film.patient_id, options.seed) for film in films]
    given = [_named_split(film, options, ledger) for film in films]
    _require_one_split(films, given, ledger)
    return given


def sized_splits(films: Sequence[FilmLabels], sizes: SplitSizes, seed: int, ledger: Ledger) -> list[str]:
    """Splits of the sizes that are asked for, patient by patient, alike in findings; the films that remain have none.

    Patients come in the order of how rare their rarest finding is, and of the hash of seed and patient among equals. Each
    goes to the split that lacks the largest share of what it has room for.

    Args:
        films: of all patients.
        sizes: by split, how many films of each finding, or of all under the empty text; where only those of all are
            given, each finding has its share of them as nearly as patients allow.
        seed: another one gives other splits.
        ledger: takes sizes that cannot be had.

    Source: Sechidis et al. 2011, "On the stratification of multi-label data" (rarest label first), by patient.
    """
    patients: dict[str, list[int]] = defaultdict(list)
    for position, film in enumerate(films):
        patients[film.patient_id].append(position)
    shown = _shown(films, patients)
    there = sum(shown.values(), Counter())
    _require_enough(sizes, there, ledger)
    by_finding = any(set(counts) != {ALL} for counts in sizes.values())
    asked: Asked = sizes if by_finding else _with_shares(sizes, there)
    order = _rarest_first(shown, there, seed)
    given = _given(order, shown, asked, limits=asked if by_finding else _OF_ALL)
    result = [given[film.patient_id] for film in films]
    _say_sizes(result, ledger)
    return result


def _given(order: Sequence[str], shown: Shown, asked: Asked, *, limits: Asked) -> dict[str, str]:
    """The split of each patient; those that found no room are tried again at the end, where few films are lacking."""
    room: dict[str, dict[str, float]] = {split: dict(counts) for split, counts in asked.items()}
    given: dict[str, str] = {}
    for who in order:
        rarest = next(iter(shown[who]))
        taking = _taking(shown[who], room, limits)
        given[who] = max(
            taking, key=lambda name: room[name].get(rarest, 0) / max(1, asked[name].get(rarest, 0)), default=LEFT_OUT
        )
        _take(room.get(given[who], {}), shown[who])
    for who in (who for who in reversed(order) if given[who] == LEFT_OUT):
        taking = [split for split in _taking(shown[who], room, limits) if split != LEFT_OUT]
        given[who] = taking[0] if taking else LEFT_OUT
        if taking:
            _take(room[taking[0]], shown[who])
    return given


def _counts(shares: SplitShares, num_films: int) -> SplitSizes:
    """Shares as numbers of films; training takes what rounding leaves."""
    validation, test = (round(share * num_films) for share in shares[1:])
    train = round(sum(shares) * num_films) - validation - test
    return {split: {ALL: size} for split, size in zip(SPLITS, (train, validation, test), strict=True)}


def read_sizes(given: str) -> SplitSizes | SplitShares:
    """Sizes of splits, from three numbers or percentages with commas between, or from a table.

    Args:
        given: films of training, validation and test, or per cent of all; or a CSV file with the columns condition, train,
            validation and test, whose rows are findings.

    Raises:
        ValueError: it is none of these, or more than all.
        CollectionError: the table lacks a column, or a row is cut.
    """
    numbers = [number.strip() for number in given.split(",")]
    if len(numbers) == len(SPLITS) and all(number.isdigit() for number in numbers):
        return {split: {ALL: int(number)} for split, number in zip(SPLITS, numbers, strict=True)}
    if len(numbers) == len(SPLITS) and all(re.fullmatch(r"\d+(\.\d+)?%", number) for number in numbers):
        return _read_shares(numbers)
    if not Path(given).is_file():
        raise ValueError(
            f"`--sizes` must be three numbers or a CSV file with the columns condition, {', '.join(SPLITS)}, but got "
            f"{given!r}. Write for example 20000,8000,28655 or 70%,15%,15%."
        )
    ledger = Ledger()
    rows = read_rows(Path(given), [("condition",), *((split,) for split in SPLITS)], ledger, "Name its columns so.")
    ledger.settle()
    wrong = [row for row in rows if not all(row.values[split].isdigit() for split in SPLITS)]
    if wrong:
        raise ValueError(
            f"`--sizes` must have numbers of films, but got {dict(wrong[0].values)} in line {wrong[0].line}. Mend it."
        )
    return {split: {row.values["condition"]: int(row.values[split]) for row in rows} for split in SPLITS}


def _read_shares(given: Sequence[str]) -> SplitShares:
    train, validation, test = (float(share.removesuffix("%")) / 100 for share in given)
    if not 0 < train + validation + test <= 1 + 1e-9:
        raise ValueError(
            f"`--sizes` must be 100 % or less together, but got {', '.join(given)}. Write for example 70%,15%,15%."
        )
    return train, validation, test


def few_shot(films: Sequence[FilmLabels], num_train: int, seed: int, conditions: Sequence[str]) -> list[int]:
    """Positions of so many training films, in their order; those of a smaller number are among those of a larger.

    The conditions take turns, each giving its next film by the hash of seed and place, so that few films show all of them.

    Args:
        films: of the training split.
        num_train: how many to keep.
        seed: another one keeps others.
        conditions: those that are evaluated by.
    """
    order = sorted(
        range(len(films)), key=lambda position: _hash(seed, f"{films[position].table}/{films[position].file}")
    )
    queues = [[position for position in order if name in films[position].findings] for name in conditions]
    in_turns = [position for turn in zip_longest(*queues) for position in turn if position is not None]
    return sorted(list(dict.fromkeys([*in_turns, *order]))[:num_train])


def _named_split(film: FilmLabels, options: SourceOptions, ledger: Ledger) -> str:
    name = NAMES.get(re.sub(r"[\s_-]+", "", film.split).casefold())
    if name is None:
        column = "split" if options.rules.split == OWN else options.rules.split
        rule = f"`{column}` must name the split of every film: train, validation or test"
        remedy = "Fill it in, or split by the hash of the patient, as without --split."
        ledger.refuse(rule, repr(film.split), remedy, file=film.table, line=film.line)
        return LEFT_OUT
    if name == TRAIN_OR_VALIDATION:
        return _train_or_validation(film.patient_id, options.seed)
    return name


def _train_or_validation(patient_id: str, seed: int) -> str:
    """The split of a patient who is no test patient, by the same hash that would part all patients."""
    train, validation, _ = SPLIT_SHARES
    return "train" if _hash(seed, patient_id) < train / (train + validation) else "validation"


def _require_one_split(films: Sequence[FilmLabels], splits: Sequence[str], ledger: Ledger) -> None:
    splits_of: dict[str, set[str]] = defaultdict(set)
    first: dict[str, FilmLabels] = {}
    for film, split in zip(films, splits, strict=True):
        splits_of[film.patient_id] |= {split} - {LEFT_OUT}
        first.setdefault(film.patient_id, film)
    shared = [who for who, names in splits_of.items() if len(names) > 1]
    if shared:
        pairs = Counter(" and ".join(sorted(splits_of[who], key=SPLITS.index)) for who in shared)
        came = ", ".join(f"{count_of(count, 'patient')} in {pair}" for pair, count in pairs.most_common())
        remedy = "Put all films of a patient into one split, or split by the hash of the patient, as without --split."
        ledger.refuse(ONE_SPLIT, f"{came}, such as {listed(map(repr, shared))}", remedy, file=first[shared[0]].table)


def _shown(films: Sequence[FilmLabels], patients: Mapping[str, Sequence[int]]) -> dict[str, Counter[str]]:
    """How many films of each finding, and of all, every patient has; the rarest finding of the whole first."""
    there = Counter(name for film in films for name in film.findings)
    return {
        who: Counter(
            dict(sorted(Counter(n for p in rows for n in films[p].findings).items(), key=lambda item: there[item[0]]))
        )
        + Counter({ALL: len(rows)})
        for who, rows in patients.items()
    }


def _with_shares(sizes: SplitSizes, there: Counter[str]) -> dict[str, dict[str, float]]:
    """Sizes of all films, and of each finding the share that it has of them; what is left out has its share as well."""
    of_all = {split: counts[ALL] for split, counts in sizes.items()}
    of_all[LEFT_OUT] = max(0, there[ALL] - sum(of_all.values()))
    return {
        split: {name: size * count / max(1, there[ALL]) for name, count in there.items()}
        for split, size in of_all.items()
    }


def _require_enough(asked: Mapping[str, Mapping[str, int]], there: Counter[str], ledger: Ledger) -> None:
    for name in sorted({name for counts in asked.values() for name in counts}):
        wanted = sum(counts.get(name, 0) for counts in asked.values())
        if wanted > there[name]:
            rule = "`--sizes` must not ask for more films than there are"
            what = f"films with {name}" if name else "films"
            ledger.refuse(rule, f"{wanted:,} of {there[name]:,} {what}", "Ask for fewer.")


def _rarest_first(shown: Shown, there: Counter[str], seed: int) -> list[str]:
    return sorted(shown, key=lambda who: (there[next(iter(shown[who]))], _hash(seed, who)))


def _take(room: dict[str, float], counts: Counter[str]) -> None:
    for name in counts:
        room[name] = room.get(name, 0) - counts[name]


def _taking(counts: Counter[str], room: Asked, limits: Asked) -> list[str]:
    """The splits that have room for all films of a patient, of the findings, or of all, that limits are set for."""
    counted = {split: [name for name in counts if name in limits.get(split, {})] for split in room}
    return [split for split in room if counted[split] and all(room[split][n] >= counts[n] for n in counted[split])]


def _say_sizes(result: Sequence[str], ledger: Ledger) -> None:
    counts = Counter(result)
    sizes = ", ".join(f"{split} {counts[split]:,}" for split in SPLITS)
    left = f"; {count_of(counts[LEFT_OUT], 'film')} of other patients left out" if counts[LEFT_OUT] else ""
    ledger.say(f"Splits of the sizes that were asked for, by patient: {sizes}{left}.")


def _hash(seed: int, name: str) -> float:
    digest = hashlib.sha256(f"{seed}/{name}".encode()).digest()
    return int.from_bytes(digest[:8], "big") / 2**64

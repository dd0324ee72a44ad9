"""Which split a film is in: by the hash of its patient, by sizes that are asked for, or as its collection says; never two."""

from __future__ import annotations

import hashlib
import re
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from itertools import zip_longest
from typing import Final

from trainables.datasets.base import SPLIT_SHARES, SPLITS, SourceOptions, SplitSizes, split_of_patient
from trainables.datasets.labels import FilmLabels
from trainables.datasets.problems import Ledger, count_of, listed
from trainables.datasets.rules import HASH, OWN

ALL: Final = ""
"""Stands for all films where a finding's name does for those that show it."""
TRAIN_OR_VALIDATION: Final = "train or validation"
_OF_ALL: Final[Mapping[str, Mapping[str, float]]] = {split: {ALL: 0} for split in SPLITS}
LEFT_OUT: Final = ""
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
            return sized_splits(films, options.sizes, options.seed, ledger)
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
    shown = {who: Counter(_shown(films, positions)) for who, positions in patients.items()}
    there = sum(shown.values(), Counter())
    by_finding = any(set(own) != {ALL} for own in sizes.values())
    asked = {split: dict(own) for split, own in sizes.items()} if by_finding else _with_shares(sizes, there)
    _require_enough(sizes, there, ledger)
    room = {split: Counter(asked.get(split, {})) for split in SPLITS}
    result = [LEFT_OUT] * len(films)
    for who in _rarest_first(shown, there, seed):
        taking = _taking(shown[who], room, asked if by_finding else _OF_ALL)
        rarest = min(shown[who], key=lambda name: there[name])
        split = max(taking, key=lambda name: room[name][rarest] / max(1, asked[name].get(rarest, 0)), default=LEFT_OUT)
        room.get(split, Counter()).subtract(shown[who])
        for position in patients[who]:
            result[position] = split
    _say_sizes(result, ledger)
    return result


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
    """For collections that keep only test patients apart: the hash of the patient parts the others as it would part all."""
    train, validation, _ = SPLIT_SHARES
    return "train" if _hash(seed, patient_id) < train / (train + validation) else "validation"


def _require_one_split(films: Sequence[FilmLabels], splits: Sequence[str], ledger: Ledger) -> None:
    found: dict[str, set[str]] = defaultdict(set)
    first: dict[str, FilmLabels] = {}
    for film, split in zip(films, splits, strict=True):
        found[film.patient_id] |= {split} - {LEFT_OUT}
        first.setdefault(film.patient_id, film)
    shared = [who for who, names in found.items() if len(names) > 1]
    if shared:
        pairs = Counter(" and ".join(sorted(found[who], key=SPLITS.index)) for who in shared)
        came = ", ".join(f"{count_of(count, 'patient')} in {pair}" for pair, count in pairs.most_common())
        remedy = "Put all films of a patient into one split, or split by the hash of the patient, as without --split."
        ledger.refuse(ONE_SPLIT, f"{came}, such as {listed(map(repr, shared))}", remedy, file=first[shared[0]].table)


def _shown(films: Sequence[FilmLabels], positions: Sequence[int]) -> Counter[str]:
    return Counter({ALL: len(positions)}) + Counter(name for p in positions for name in films[p].findings)


def _with_shares(sizes: SplitSizes, there: Counter[str]) -> dict[str, dict[str, float]]:
    """Sizes of all films, and of each finding the share that it has of them."""
    return {
        split: {name: own[ALL] * count / max(1, there[ALL]) for name, count in there.items()}
        for split, own in sizes.items()
    }


def _require_enough(asked: Mapping[str, Mapping[str, int]], there: Counter[str], ledger: Ledger) -> None:
    for name in sorted({name for own in asked.values() for name in own}):
        wanted = sum(own.get(name, 0) for own in asked.values())
        if wanted > there[name]:
            rule = "`--sizes` must not ask for more films than there are"
            what = f"films with {name}" if name else "films"
            ledger.refuse(rule, f"{wanted:,} of {there[name]:,} {what}", "Ask for fewer.")


def _rarest_first(shown: Mapping[str, Counter[str]], there: Counter[str], seed: int) -> list[str]:
    rarity = {who: min(there[name] for name in own) for who, own in shown.items()}
    return sorted(shown, key=lambda who: (rarity[who], _hash(seed, who)))


def _taking(own: Counter[str], room: Mapping[str, Counter[str]], asked: Mapping[str, Mapping[str, float]]) -> list[str]:
    """The splits that have room for all films of a patient that they were asked to count."""
    counted = {split: [name for name in own if name in asked.get(split, {})] for split in SPLITS}
    return [split for split in SPLITS if counted[split] and all(room[split][n] >= own[n] for n in counted[split])]


def _say_sizes(result: Sequence[str], ledger: Ledger) -> None:
    counts = Counter(result)
    sizes = ", ".join(f"{split} {counts[split]:,}" for split in SPLITS)
    left = f"; {count_of(counts[LEFT_OUT], 'film')} of other patients left out" if counts[LEFT_OUT] else ""
    ledger.say(f"Splits of the sizes that were asked for, by patient: {sizes}{left}.")


def _hash(seed: int, name: str) -> float:
    digest = hashlib.sha256(f"{seed}/{name}".encode()).digest()
    return int.from_bytes(digest[:8], "big") / 2**64

"""Splits by size, of a collection's own, and few-shot subsets: counts by hand, and no patient in two of them."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from stand_ins import STAND_INS, folder, save, write

from trainables.datasets import SOURCES
from trainables.datasets.base import SPLITS, SourceOptions
from trainables.datasets.folder import FolderSource
from trainables.datasets.labels import FilmLabels
from trainables.datasets.problems import CollectionError, Ledger
from trainables.datasets.rules import LabelRules
from trainables.datasets.splits import ALL, few_shot, read_sizes, sized_splits, splits_of

FINDINGS = ("Edema", "Mass", "No Finding")
TABLE = "metadata.csv"


def film(number: int, patient: str, *findings: str, split: str = "") -> FilmLabels:
    place = {"file": f"{number}.png", "table": TABLE, "line": number + 2}
    known = {"age": None, "sex": None, "view": None}
    return FilmLabels(**place, **known, patient_id=patient, findings=findings or ("Mass",), split=split)  # type: ignore[arg-type]


def in_splits(films: list[FilmLabels], splits: list[str]) -> dict[str, Counter[str]]:
    counters: dict[str, Counter[str]] = {}
    for film, split in zip(films, splits, strict=True):
        counters.setdefault(split, Counter()).update((ALL, *film.findings))
    return counters


@settings(max_examples=25)
@given(st.lists(st.tuples(st.integers(0, 30), st.sampled_from(FINDINGS)), min_size=60, max_size=120), st.integers(0, 9))
def test_sizes_are_never_exceeded_and_patients_never_parted(drawn: list[tuple[int, str]], seed: int) -> None:
    films = [film(number, f"p{who}", name) for number, (who, name) in enumerate(drawn)]
    sizes = {"train": {ALL: 30}, "validation": {ALL: 10}, "test": {ALL: 12}}
    ledger = Ledger()
    splits = sized_splits(films, sizes, seed, ledger)
    assert splits == sized_splits(films, sizes, seed, Ledger()) and not ledger.problems
    counts = in_splits(films, splits)
    assert all(counts.get(split, Counter())[ALL] <= asked[ALL] for split, asked in sizes.items())
    where = {}
    for labels, split in zip(films, splits, strict=True):
        assert where.setdefault(labels.patient_id, split) == split


def test_patients_of_one_film_fill_sizes_exactly_and_alike() -> None:
    films = [film(number, f"p{number}", FINDINGS[number % 3]) for number in range(300)]
    counts = in_splits(films, sized_splits(films, read_sizes("120,60,90"), 0, Ledger()))
    assert {split: counts[split][ALL] for split in SPLITS} == {"train": 120, "validation": 60, "test": 90}
    assert all(counts["train"][name] == 40 and counts["test"][name] == 30 for name in FINDINGS)


@pytest.mark.parametrize(("given", "sizes"), [("80%,16%,4%", (262, 52, 13)), ("10%, 10%, 4.9%", (32, 33, 16))])
def test_shares_are_of_all_films(given: str, sizes: tuple[int, int, int]) -> None:
    films = [film(number, f"p{number}", FINDINGS[number % 3]) for number in range(327)]
    splits = splits_of(films, SourceOptions(sizes=read_sizes(given)), Ledger())
    assert tuple(splits.count(split) for split in SPLITS) == sizes


def test_sizes_of_each_finding_come_from_a_table(tmp_path: Path) -> None:
    table = tmp_path / "sizes.csv"
    table.write_text("condition,train,validation,test\nEdema,30,10,20\nMass,5,5,60\n")
    films = [film(number, f"p{number}", FINDINGS[number % 3]) for number in range(300)]
    films.append(film(300, "p1", "Rare"))  # of a patient with a finding that is asked for
    counts = in_splits(films, sized_splits(films, read_sizes(str(table)), 0, Ledger()))
    assert all(counts["train"][name] == count for name, count in {"Edema": 30, "Mass": 5, "No Finding": 0}.items())
    assert counts["test"]["Mass"] == 60
    assert counts[""]["No Finding"] == 100


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("1,2", "must be three numbers or a CSV file"),
        ("no.csv", "must be three numbers or a CSV file"),
        ("80%,16%,4", "must be three numbers or a CSV file"),
        ("80%,16%,5%", "must be 100 % or less together, but got 80%, 16%, 5%"),
        ("0%,0%,0%", "must be 100 % or less together"),
    ],
)
def test_sizes_that_are_none_are_refused(given: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        read_sizes(given)


def test_more_films_than_there_are_cannot_be_had() -> None:
    ledger = Ledger()
    sized_splits([film(0, "a"), film(1, "b")], read_sizes("2,1,1"), 0, ledger)
    assert ledger.problems[0].came == "4 of 2 films"


def test_few_films_are_among_more_and_show_all_conditions() -> None:
    films = [film(number, f"p{number}", "Edema" if number % 25 == 0 else "Mass") for number in range(500)]
    subsets = [few_shot(films, count, 3, FINDINGS) for count in (10, 100, 499)]
    assert [len(subset) for subset in subsets] == [10, 100, 499] and subsets[0] == sorted(subsets[0])
    assert set(subsets[0]) < set(subsets[1]) < set(subsets[2])
    assert sum("Edema" in films[position].findings for position in subsets[0]) == 5
    assert few_shot(films, 10, 4, FINDINGS) != subsets[0]


def test_a_split_of_its_own_is_followed_and_read_in_any_spelling() -> None:
    films = [
        film(0, "a", split="Train"),
        film(1, "b", split="VAL"),
        film(2, "c", split="test"),
        film(3, "d", split="train-val"),
    ]
    splits = splits_of(films, SourceOptions(rules=LabelRules(split="own")), Ledger())
    assert splits[:3] == ["train", "validation", "test"] and splits[3] in ("train", "validation")


def test_leaks_of_a_split_that_users_bring_are_reported_and_refused() -> None:
    films = [film(number, "ab"[number], split=split) for number, split in enumerate(("train", "test"))]
    films += [film(2, "a", split="test"), film(3, "b", split="val"), film(4, "c", split="somewhere")]
    ledger = Ledger()
    splits_of(films, SourceOptions(rules=LabelRules(split="fold")), ledger)
    unknown, shared = ledger.problems
    assert unknown.came == "'somewhere'" and "`fold`" in unknown.rule and unknown.line == 6
    assert shared.came == "1 patient in train and test, 1 patient in validation and test, such as 'a', 'b'"


def test_the_same_picture_in_two_splits_of_ones_own_is_refused(tmp_path: Path) -> None:
    options = folder(tmp_path)
    options = SourceOptions(root=tmp_path, conditions=options.conditions, rules=LabelRules(split="own"))
    assert FolderSource.create(options).num_samples("test") > 0
    save(tmp_path / "films" / "6.png", 4)  # of the test split, as another of validation
    with pytest.raises(
        CollectionError, match=r"`split` must not have one picture in two of them, but got films/4\.png"
    ):
        FolderSource.create(options)
    save(tmp_path / "films" / "6.png", 6)


def test_training_films_are_kept_as_asked(tmp_path: Path) -> None:
    options = folder(tmp_path)
    kept = []
    for count in (10, 40):
        options = SourceOptions(root=tmp_path, conditions=options.conditions, num_train=count)
        source = FolderSource.create(options)
        kept.append({sample.image_id for sample in source.samples("train")})
        assert source.num_samples("train") == count and source.num_samples("test") == 22
    assert kept[0] < kept[1]


@pytest.mark.parametrize(
    ("collection", "options", "message"),
    [
        (
            "montgomery",
            {"rules": LabelRules(split="own")},
            "`--split own` must be of a collection that comes with a split",
        ),
        ("chexpert", {"rules": LabelRules(split="fold")}, "`--split` must be hash or own for this collection"),
        ("folder", {"rules": LabelRules(split="own"), "sizes": read_sizes("1,1,1")}, "`--sizes` must be left out"),
        ("folder", {"rules": LabelRules(split="fold")}, "must have rows with file_name, patient_id, fold"),
    ],
)
def test_splits_that_cannot_be_had_are_refused(
    collection: str, options: dict[str, Any], message: str, tmp_path: Path
) -> None:
    STAND_INS[collection](tmp_path, 12)
    with pytest.raises(ValueError, match=message):
        SOURCES[collection].create(SourceOptions(root=tmp_path, **options))


def test_the_release_of_nih_has_a_split_of_its_own(tmp_path: Path) -> None:
    header = ("Image Index", "Finding Labels", "Patient ID", "Patient Age", "Patient Gender", "View Position")
    rows = [(f"{number}.png", "No Finding", number // 2, 40, "M", "PA") for number in range(80)]
    write(tmp_path / "Data_Entry_2017.csv", header, rows)
    (tmp_path / "test_list.txt").write_text("".join(f"{number}.png\n" for number in range(20)))
    (tmp_path / "train_val_list.txt").write_text("".join(f"{number}.png\n" for number in range(20, 80)))
    for number in range(80):
        save(tmp_path / "images" / f"{number}.png", number)
    options = SourceOptions(root=tmp_path, conditions=("No Finding",), rules=LabelRules(split="own"))
    source = SOURCES["nih_cxr14"].create(options)
    assert {sample.patient_id for sample in source.samples("test")} == {str(number) for number in range(10)}
    assert source.num_samples("train") + source.num_samples("validation") == 60

"""Every data source: the same samples again, no patient in two splits, captions by the template, all prepared alike."""

from __future__ import annotations

import csv
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from film_folders import save_film
from stand_ins import STAND_INS

from trainables.datasets import SOURCES, ImageTextSource, SourceOptions
from trainables.datasets.base import SPLITS
from trainables.datasets.rules import LabelRules
from trainables.datasets.writing import write_dataset

OWN_SPLIT = ("chexpert", "mimic_cxr", "vindr", "folder")
FINDINGS = ("Effusion", "No Finding", "Infiltration|Effusion")


def phantom(root: Path) -> SourceOptions:
    return SourceOptions(num_patients=60)


def nih_cxr14(root: Path) -> SourceOptions:
    """A folder with a metadata.csv and a film each of 150 patients."""
    with (root / "metadata.csv").open("w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(("file", "patient_id", "age", "sex", "view", "labels"))
        for number in range(150):
            save_film(root / f"{number}.png", number)
            view = ("PA", "AP", "unknown")[number % 3]
            rows.writerow((f"{number}.png", number, 30, "F", view, FINDINGS[number % 7 % 3]))
    return SourceOptions(root=root)


def no_files(root: Path) -> SourceOptions:
    return SourceOptions()


WITH_OPTIONS: dict[str, Callable[[Path], SourceOptions]] = {"phantom": phantom, "nih_cxr14": nih_cxr14, **STAND_INS}
EXAMPLES = {name: WITH_OPTIONS.get(name, no_files) for name in SOURCES}


@pytest.fixture(params=EXAMPLES, scope="module")
def options(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, SourceOptions]:
    """Name and options of a source, with raw data that no test changes."""
    return request.param, EXAMPLES[request.param](tmp_path_factory.mktemp(request.param))


@pytest.fixture(scope="module")
def source(options: tuple[str, SourceOptions]) -> ImageTextSource:
    name, its = options
    return SOURCES[name].create(replace(its, with_view=True))


def test_every_source_is_in_the_table_by_its_name() -> None:
    assert all(source.name == name for name, source in SOURCES.items())


@pytest.mark.slow
def test_samples_come_again_in_the_same_order(source: ImageTextSource) -> None:
    for split in SPLITS:
        first, again = list(source.samples(split)), list(source.samples(split))
        assert len(first) == source.num_samples(split) > 0
        assert [sample.image_id for sample in first] == [sample.image_id for sample in again]
        assert all(np.array_equal(sample.image, other.image) for sample, other in zip(first, again, strict=True))


@pytest.mark.slow
def test_a_patient_is_in_one_split_and_a_condition_in_each(source: ImageTextSource) -> None:
    samples = {split: list(source.samples(split)) for split in SPLITS}
    patients = [{sample.patient_id for sample in samples[split]} for split in SPLITS]
    assert sum(map(len, patients)) == len(set().union(*patients))
    for members in samples.values():
        assert set(source.conditions) <= {name for sample in members for name in sample.conditions}


@pytest.mark.slow
def test_captions_follow_the_template_and_may_name_the_view(tmp_path: Path, source: ImageTextSource) -> None:
    prepared = write_dataset(source, tmp_path / "prepared")
    assert prepared.prompts == source.prompts and prepared.source_fingerprint == source.fingerprint()
    train = prepared.split("train")
    known = zip(train.prompts, train.conditions, train.views, strict=True)
    for prompt, conditions, view in known:
        assert prompt == prepared.prompts.prompt(conditions, view=view)
        assert prompt.endswith(" view") == (view is not None)


@pytest.mark.slow
def test_the_fingerprint_tells_captions_apart(options: tuple[str, SourceOptions], source: ImageTextSource) -> None:
    name, its = options
    plain, again = SOURCES[name].create(its).fingerprint(), SOURCES[name].create(its).fingerprint()
    assert plain == again != source.fingerprint()


@pytest.mark.slow
@pytest.mark.parametrize("name", OWN_SPLIT)
def test_a_split_of_its_own_parts_patients_too(name: str, tmp_path: Path) -> None:
    source = SOURCES[name].create(replace(STAND_INS[name](tmp_path), rules=LabelRules(split="own")))
    patients = [{sample.patient_id for sample in source.samples(split)} for split in SPLITS]
    assert all(patients) and sum(map(len, patients)) == len(set().union(*patients))
    assert source.fingerprint() != SOURCES[name].create(STAND_INS[name](tmp_path / "again")).fingerprint()


@pytest.mark.parametrize("split", ["training", ""])
def test_an_unknown_split_is_refused(source: ImageTextSource, split: str) -> None:
    with pytest.raises(ValueError, match="`split` must be one of train, validation, test"):
        list(source.samples(split))
    with pytest.raises(ValueError, match="`split` must be one of train, validation, test"):
        source.num_samples(split)

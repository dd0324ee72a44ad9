"""The real label tables inside torchxrayvision's wheel, through our readers, beside pandas' own counts; nothing is copied."""

from __future__ import annotations

import importlib.util
import re
import tarfile
from collections import Counter
from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pandas
import pytest

from trainables.datasets.base import SPLITS, SourceOptions
from trainables.datasets.chexpert import CheXpertReader, CheXpertSource
from trainables.datasets.graded import CHEXPERT
from trainables.datasets.iu_xray import IndianaReader
from trainables.datasets.labels import FilmLabels, FilmReader
from trainables.datasets.nih_cxr14 import OFFICIAL
from trainables.datasets.padchest import PadChestReader
from trainables.datasets.patients import known_patients
from trainables.datasets.problems import Ledger
from trainables.datasets.rsna import RsnaReader
from trainables.datasets.rules import LabelRules
from trainables.datasets.splits import ALL, splits_of

from stand_ins import save  # isort: skip

pytestmark = pytest.mark.slow

SPEC = importlib.util.find_spec("torchxrayvision")
DATA = Path((SPEC.origin if SPEC else None) or "").parent / "data"
SIX = ("Cardiomegaly", "Lung Opacity", "Edema", "No Finding", "Pneumothorax", "Pleural Effusion")


def films_of(reader: FilmReader, table: Path, rules: LabelRules) -> tuple[list[FilmLabels], Ledger]:
    ledger = Ledger()
    films = reader.read(table, reader.vocabulary({}), ledger, rules)
    ledger.settle()
    return films, ledger


def counted(films: list[FilmLabels]) -> Counter[str]:
    return Counter(name for film in films for name in film.findings)


@pytest.fixture(scope="module")
def chexpert(tmp_path_factory: pytest.TempPathFactory) -> Path:
    table = tmp_path_factory.mktemp("chexpert") / "train.csv.gz"
    table.symlink_to(DATA / "chexpert_train.csv.gz")
    return table


@pytest.fixture(scope="module")
def frame(chexpert: Path) -> pandas.DataFrame:
    frame = pandas.read_csv(chexpert)
    assert len(frame) == 223_414
    return frame[(frame["Frontal/Lateral"] == "Frontal") & frame["AP/PA"].isin(["AP", "PA"])]


@pytest.fixture(scope="module")
def ignored(chexpert: Path) -> list[FilmLabels]:
    return films_of(CheXpertReader(), chexpert, LabelRules())[0]


def test_chexpert_is_counted_as_pandas_counts_it(ignored: list[FilmLabels], frame: pandas.DataFrame) -> None:
    columns = list(CHEXPERT)
    assert counted(ignored) == {name: int((frame[name] == 1).sum()) for name in columns}
    unknown = Counter(name for film in ignored for name in film.unknown)
    positive = (frame[columns] == 1).any(axis=1)
    assert len(ignored) == positive.sum()
    assert unknown == {name: n for name in columns if (n := int((frame[positive][name] == -1).sum()))}


def test_policies_change_what_is_uncertain_and_nothing_else(tmp_path: Path) -> None:
    head = pandas.read_csv(DATA / "chexpert_train.csv.gz", nrows=2_000, dtype=str, keep_default_na=False)
    head.to_csv(tmp_path / "train.csv", index=False)
    frontal = head[(head["Frontal/Lateral"] == "Frontal") & head["AP/PA"].isin(["AP", "PA"])]
    ones, zeros, ignored = (
        films_of(CheXpertReader(), tmp_path / "train.csv", LabelRules(uncertain=policy))[0]
        for policy in ("ones", "zeros", "ignore")
    )
    assert counted(ones) == {name: int(frontal[name].isin(["1.0", "-1.0"]).sum()) for name in CHEXPERT}
    assert counted(zeros) == {name: int((frontal[name] == "1.0").sum()) for name in CHEXPERT}
    assert zeros == [replace(film, unknown=()) for film in ignored] and any(film.unknown for film in ignored)
    assert not any(film.unknown for film in (*ones, *zeros))


def test_splits_of_the_papers_sizes_have_no_patient_in_common(ignored: list[FilmLabels]) -> None:
    asked = {"train": 20_000, "validation": 8_000, "test": 28_655}
    options = SourceOptions(sizes={split: {ALL: count} for split, count in asked.items()})
    six = [film for film in ignored if set(SIX) & set(film.findings)]
    splits = splits_of(six, options, Ledger())
    assert {split: splits.count(split) for split in SPLITS} == asked
    patients = {
        split: {f.patient_id for f, drawn in zip(six, splits, strict=True) if drawn == split} for split in SPLITS
    }
    assert not patients["train"] & patients["validation"] | patients["test"] & (
        patients["train"] | patients["validation"]
    )
    shares = {name: sum(name in film.findings for film in six) / len(six) for name in SIX}
    for split, count in asked.items():
        shown = counted([film for film, drawn in zip(six, splits, strict=True) if drawn == split])
        for name, share in shares.items():
            assert shown[name] / count == pytest.approx(share, rel=0.05)


def test_the_first_films_of_chexpert_are_prepared_from_stub_images(tmp_path: Path) -> None:
    head = pandas.read_csv(DATA / "chexpert_train.csv.gz", nrows=300, dtype=str, keep_default_na=False)
    head.to_csv(tmp_path / "train.csv", index=False)
    for number, place in enumerate(head["Path"]):
        save(tmp_path / place.partition("/")[2], number)
    source = CheXpertSource.create(SourceOptions(root=tmp_path, conditions=("Lung Opacity", "Support Devices")))
    films = [film.labels for split in SPLITS for film in source.films[split]]
    frontal = head[(head["Frontal/Lateral"] == "Frontal") & (head["AP/PA"] != "LL")]
    assert counted(films) == {n: c for n in CHEXPERT if (c := int((frontal[n] == "1.0").sum()))}
    assert {film.patient_id for film in films} <= set(frontal["Path"].str.extract(r"(patient\d+)")[0])


def test_nih_is_counted_as_pandas_counts_it() -> None:
    films, _ = films_of(OFFICIAL.reader, DATA / "Data_Entry_2017_v2020.csv.gz", LabelRules())
    frame = pandas.read_csv(DATA / "Data_Entry_2017_v2020.csv.gz")
    named = frame["Finding Labels"].str.get_dummies("|").sum()
    ours = {"Effusion": "Pleural Effusion", "Pleural_Thickening": "Pleural Thickening"}
    assert len(films) == len(frame) == 112_120
    assert counted(films) == {ours.get(name, name): int(count) for name, count in named.items()}
    assert len({film.patient_id for film in known_patients(films, Ledger())}) == frame["Patient ID"].nunique()


def test_padchest_is_counted_as_pandas_counts_it() -> None:
    table = DATA / "PADCHEST_chest_x_ray_images_labels_160K_01.02.19.csv.gz"
    films, ledger = films_of(PadChestReader(), table, LabelRules())
    frame = pandas.read_csv(table, usecols=["Projection", "Labels"])
    frontal = frame[frame["Projection"].isin(["PA", "AP", "AP_horizontal"]) & frame["Labels"].notna()]
    listed = frontal["Labels"][frontal["Labels"].str.contains("[", regex=False)]
    known = {cell: {term.strip() for term in re.findall("'([^']*)'", cell)} for cell in listed.unique()}
    terms = [known[cell] for cell in listed]
    shown = counted(films)
    for finding, term in (("Cardiomegaly", "cardiomegaly"), ("Pleural Effusion", "pleural effusion")):
        assert shown[finding] == sum(term in of_film for of_film in terms) > 5_000
    assert shown["Fracture"] == sum(any("fracture" in term for term in of_film) for of_film in terms)
    assert any("49,579" in said or "lateral" in said for said in ledger.said)


def test_rsna_is_counted_as_pandas_counts_it() -> None:
    table = DATA / "kaggle_stage_2_train_labels.csv.zip"
    films, _ = films_of(RsnaReader(), table, LabelRules())
    targets = pandas.read_csv(table).groupby("patientId")["Target"].max()
    assert counted(films) == {"Lung Opacity": int(targets.sum()), "No Lung Opacity": int((1 - targets).sum())}
    views = pandas.read_csv(DATA / "kaggle_stage_2_train_images_dicom_headers.csv.gz").set_index("PatientID")
    assert Counter(film.view for film in films) == Counter(views.loc[targets.index, "ViewPosition"])
    assert np.mean([film.age or 0 for film in films]) == pytest.approx(45.6, abs=2)


def test_the_indiana_reports_are_read(tmp_path: Path) -> None:
    films, _ = films_of(IndianaReader(), DATA / "NLMCXR_reports.tgz", LabelRules())
    views = pandas.read_csv(DATA / "nlmcxr_tsne_pa.csv.gz").set_index("imageid")["tsne-view"]
    normal, num_reports, num_frontal = 0, 0, 0
    with tarfile.open(DATA / "NLMCXR_reports.tgz") as packed:
        for member in packed:
            if member.name.endswith(".xml") and (content := packed.extractfile(member)):
                report = ElementTree.parse(content).getroot()
                frontal = [i for node in report.findall(".//parentImage") if views.get(i := node.attrib["id"]) == "PA"]
                num_reports += 1
                num_frontal += len(frontal)
                normal += len(frontal) * any(node.text == "normal" for node in report.findall(".//MeSH/major"))
    assert num_reports == 3_955
    assert counted(films)["No Finding"] == normal > 1_000
    assert 0.9 * num_frontal < len(films) <= num_frontal
    assert not any("XXXX" in film.text for film in films) and sum(bool(film.text) for film in films) > 0.95 * len(films)

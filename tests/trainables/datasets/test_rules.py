"""Label policies by another reading, whatever the cells; and tables in each of three formats that say the same."""

from __future__ import annotations

import csv
import json
from dataclasses import replace
from pathlib import Path

import pandas
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from stand_ins import folder, mimic_cxr

from trainables.datasets.base import SPLITS, SourceOptions
from trainables.datasets.chexpert import CheXpertReader
from trainables.datasets.folder import COLUMNS, FolderSource
from trainables.datasets.graded import CHEXPERT
from trainables.datasets.labels import AS_THEY_ARE
from trainables.datasets.mimic_cxr import MimicCxrSource
from trainables.datasets.problems import CollectionError, Ledger
from trainables.datasets.rules import POLICIES, LabelRules

CELLS = ("", "1.0", "0.0", "-1.0", "1", "0", "-1")
BAD = ("2", "yes", "nan", "1.5", "--")


@pytest.mark.slow
@given(st.lists(st.sampled_from(CELLS), min_size=3, max_size=3), st.sampled_from(POLICIES), st.sampled_from(POLICIES))
def test_each_cell_is_present_absent_or_open(cells: list[str], uncertain: str, blank: str) -> None:
    rules = LabelRules(uncertain=uncertain, blank=blank)  # type: ignore[arg-type]
    present, unknown = rules.graded(dict(zip("abc", cells, strict=True)))
    for name, cell in zip("abc", cells, strict=True):
        policy = blank if cell == "" else uncertain if float(cell) < 0 else {"1": "ones", "0": "zeros"}[cell[0]]
        assert (name in present, name in unknown) == (policy == "ones", policy == "ignore")


@pytest.mark.slow
@settings(max_examples=200)
@given(st.lists(st.lists(st.sampled_from((*CELLS * 3, *BAD)), min_size=14, max_size=14), min_size=1, max_size=6))
def test_rows_of_chexpert_are_refused_by_line_or_read_as_they_are(
    tmp_path_factory: pytest.TempPathFactory, rows: list[list[str]]
) -> None:
    table = tmp_path_factory.mktemp("c") / "train.csv"
    with table.open("w", newline="") as file:
        lines = csv.writer(file)
        lines.writerow(("Path", "Sex", "Age", "Frontal/Lateral", "AP/PA", *CHEXPERT))
        for number, cells in enumerate(rows):
            lines.writerow(
                (f"CheXpert-v1.0/train/patient{number:05d}/study1/view1_frontal.jpg", "F", 5, "Frontal", "PA", *cells)
            )
    ledger = Ledger()
    bad = {number + 2 for number, cells in enumerate(rows) if set(cells[1:]) & set(BAD)}
    films = CheXpertReader().rows(table, AS_THEY_ARE, ledger)
    assert {problem.line for problem in ledger.problems} == bad
    for film in films:
        cells = dict(zip(CHEXPERT, rows[(film.line or 0) - 2], strict=True))
        healthy = cells["No Finding"] in ("1", "1.0")
        named = {name for name, cell in cells.items() if cell in ("1", "1.0")}
        assert set(film.labels) == (named & {"No Finding", "Support Devices"} if healthy else named)
        assert not set(film.labels) & set(film.unknown)


@pytest.mark.parametrize("options", [{"uncertain": "maybe"}, {"section": "history"}, {"labeler": "me"}])
def test_other_rules_are_refused(options: dict[str, str]) -> None:
    with pytest.raises(ValueError, match="must be one of"):
        LabelRules(**options)  # type: ignore[arg-type]


def test_tables_of_three_formats_are_read_alike(tmp_path: Path) -> None:
    rows = [
        {"file_name": "a.png", "patient_id": "007", "labels": "Edema|Mass", "text": "One. Two.", "split": "train"},
        {"file_name": "b.png", "patient_id": "8", "labels": "Edema", "text": "", "split": "test"},
    ]
    frame = pandas.DataFrame(rows)
    frame.to_csv(tmp_path / "metadata.csv", index=False)
    frame.assign(labels=frame["labels"].str.split("|")).to_parquet(tmp_path / "metadata.parquet")
    (tmp_path / "metadata.jsonl").write_text("\n".join(json.dumps(row) for row in rows))
    read = []
    for name in ("metadata.csv", "metadata.jsonl", "metadata.parquet"):
        ledger = Ledger()
        read.append(COLUMNS.read(tmp_path / name, COLUMNS.vocabulary({}), ledger))
        assert not ledger.problems
    for films in read:
        assert [(f.file, f.patient_id, f.findings, f.text, f.split) for f in films] == [
            ("a.png", "007", ("Edema", "Mass"), "One. Two.", "train"),
            ("b.png", "8", ("Edema",), "", "test"),
        ]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("metadata.jsonl", b'{"file_name": "a.png"}\n{', r"JSON object on every line|no patient_id"),
        ("metadata.jsonl", b"", r"but got no row"),
        ("metadata.parquet", b"no table", r"`metadata\.parquet` must be Parquet"),
        (
            "metadata.jsonl",
            b'{"file_name": "a.png", "patient_id": 1}',
            r"must have a column of labels or of texts, but got neither",
        ),
    ],
)
def test_tables_that_are_none_are_refused(tmp_path: Path, name: str, content: bytes, message: str) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(CollectionError, match=message):
        FolderSource.create(SourceOptions(root=tmp_path))


@pytest.mark.parametrize("outside", ["../secret.png", "{absolute}", "films/../../secret.png"])
def test_films_outside_the_folder_are_not_read(tmp_path: Path, outside: str) -> None:
    options = replace(folder(tmp_path / "root"), max_rejects=0.0)
    secret = (tmp_path / "root" / "films" / "0.png").rename(tmp_path / "secret.png")
    table = tmp_path / "root" / "metadata.jsonl"
    table.write_text(table.read_text().replace("films/0.png", outside.replace("{absolute}", str(secret))))
    with pytest.raises(CollectionError, match=r"must name only images that are there, but got .*secret\.png'"):
        FolderSource.create(options)


@pytest.mark.parametrize("linked", ["films/0.png", "films"])
def test_links_out_of_the_folder_are_not_followed(tmp_path: Path, linked: str) -> None:
    options = replace(folder(tmp_path / "root"), max_rejects=0.0)
    (tmp_path / "root" / linked).rename(tmp_path / "secret")
    (tmp_path / "root" / linked).symlink_to(tmp_path / "secret")
    with pytest.raises(CollectionError, match=r"images that are no links out of the folder, but got .*'films/0\.png'"):
        FolderSource.create(options)


def test_links_within_the_folder_are_followed_and_so_is_one_to_the_folder(tmp_path: Path) -> None:
    options = folder(tmp_path / "root")
    (tmp_path / "root" / "films").rename(tmp_path / "root" / "elsewhere")
    (tmp_path / "root" / "films").symlink_to("elsewhere")
    (tmp_path / "link").symlink_to(tmp_path / "root")
    source = FolderSource.create(replace(options, root=tmp_path / "link"))
    assert sum(source.num_samples(split) for split in SPLITS) == 150


def test_reports_outside_the_folder_are_no_captions(tmp_path: Path) -> None:
    options = replace(mimic_cxr(tmp_path / "root"), caption="text")
    for report in (tmp_path / "root" / "files").glob("p*/p*/s*.txt"):
        report.rename(tmp_path / report.name)
        report.symlink_to(tmp_path / report.name)
    with pytest.raises(CollectionError, match=r"films that have texts of their own, but got none"):
        MimicCxrSource.create(options)


def test_texts_alone_make_one_kind_of_film(tmp_path: Path) -> None:
    folder(tmp_path)
    lines = [json.loads(line) for line in (tmp_path / "metadata.jsonl").read_text().splitlines()]
    plain = [json.dumps({key: value for key, value in line.items() if key != "labels"}) for line in lines]
    (tmp_path / "metadata.jsonl").write_text("\n".join(plain))
    source = FolderSource.create(SourceOptions(root=tmp_path, caption="text"))
    sample = next(source.samples("train"))
    assert source.conditions == sample.conditions == ("Chest X-ray",) and sample.prompt == "Cardiomegaly in film 0 of."
    assert sum(source.num_samples(split) for split in SPLITS) == 150

"""Another data set is a name, a title and its layouts, and nothing else."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from film_folders import film, save_film

from trainables.datasets.base import SPLITS, SourceOptions
from trainables.datasets.collection import FilmTable
from trainables.datasets.films import FilmTableSource
from trainables.datasets.labels import LabelColumns

COLUMNS = LabelColumns(
    file=("scan",),
    patient_id=("who",),
    age=("years", "age"),
    sex=("sex",),
    view=("projection",),
    findings=("seen",),
    separator=";",
    words={"PTX": "Pneumothorax"},
)


class WardSource(FilmTableSource):
    """Films of one ward, in two folders."""

    name = "ward"
    title = "the ward's films"
    tables = (FilmTable(pattern="ward.csv", reader=COLUMNS, image_folders=("east", "west")),)


def ward(root: Path, *rows: str, header: str = "scan,who,years,sex,projection,seen") -> Path:
    root.mkdir(exist_ok=True)
    (root / "ward.csv").write_text("\n".join((header, *rows)) + "\n")
    return root


@pytest.fixture
def full(tmp_path: Path) -> Path:
    """A hundred and twenty patients with a film each, every other with two findings."""
    rows = []
    for number in range(120):
        file = tmp_path / ("east", "west")[number % 2] / f"{number}.png"
        file.parent.mkdir(exist_ok=True)
        save_film(file, number)
        rows.append(f"{file.name},p{number},{number},x,AP,{'PTX; Edema' if number % 2 else 'No Finding'}")
    return ward(tmp_path, *rows)


def test_films_are_read_as_their_layout_says(full: Path) -> None:
    source = WardSource.create(SourceOptions(root=full))
    samples = {sample.image_id: sample for split in SPLITS for sample in source.samples(split)}
    assert len(samples) == 120 and source.conditions == ("Edema", "No Finding", "Pneumothorax")
    seventh = samples["7"]
    assert seventh.conditions == ("Pneumothorax", "Edema") and np.array_equal(seventh.image, film(7).astype(np.uint8))
    assert (seventh.patient_id, seventh.age, seventh.sex, seventh.view) == ("p7", 7, None, "AP")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"header": "scan,who,sex,projection,seen"},
            r"`ward\.csv` must have the columns .*, but got no years among 'scan', .*\. Use",
        ),
        (
            {"row": "1.png,p1,3,F,PA, ;"},
            r"`seen` must name the findings of a film, .* but got ';' in line 2 of ward\.csv",
        ),
        ({"row": "1.png,p1"}, r"`ward\.csv` must have 6 values in every row, .* but got 2 in line 2 of ward\.csv"),
    ],
)
def test_label_files_that_are_none_are_answered(tmp_path: Path, change: dict[str, str], message: str) -> None:
    header = change.get("header", "scan,who,age,sex,projection,seen")
    with pytest.raises(ValueError, match=message):
        WardSource(SourceOptions(root=ward(tmp_path, change.get("row", "1.png,p1,3,F,PA,PTX"), header=header)))


def test_messages_name_the_data_set_and_its_label_file(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="`root` must be the folder of the ward's films, but got none"):
        WardSource.create(SourceOptions())
    with pytest.raises(FileNotFoundError, match=r"`root` must hold ward\.csv, but got .* with none"):
        WardSource(SourceOptions(root=tmp_path))

"""NIH ChestX-ray14 in both layouts."""

from __future__ import annotations

import csv
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from trainables.datasets.base import SPLITS, SourceOptions, split_of_patient
from trainables.datasets.nih_cxr14 import NihCxr14Source
from trainables.datasets.problems import CollectionError

REAL = Path(__file__).resolve().parents[3] / "../shared/data/nih_cxr14_1000_64"
FINDINGS = ("Effusion", "No Finding", "Cardiomegaly|Effusion", "Infiltration", "Pleural_Thickening")
COLUMNS = (
    "Image Index",
    "Finding Labels",
    "Follow-up #",
    "Patient ID",
    "Patient Age",
    "Patient Gender",
    "View Position",
)


def nih(**options: Any) -> NihCxr14Source:
    return NihCxr14Source(SourceOptions(**options))


def official_release(root: Path, num_patients: int = 60, sex_column: str = "Patient Gender") -> Path:
    """A small release: two films a patient, some of 16 bits, spread over two image folders."""
    root.mkdir()
    columns = [sex_column if column == "Patient Gender" else column for column in COLUMNS]
    with (root / "Data_Entry_2017_v2020.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(columns)
        for number in range(num_patients * 2):
            patient = number // 2 + 1
            name = f"{patient:08d}_{number % 2:03d}.png"
            _save(root / f"images_{number % 2 + 1:03d}" / "images" / name, number)
            labels = FINDINGS[number % len(FINDINGS)]
            writer.writerow(
                [name, labels, number % 2, patient, 20 + patient, "FM"[patient % 2], ("PA", "AP")[number % 2]]
            )
    return root


def _save(path: Path, number: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    levels = np.random.default_rng(number).uniform(size=(80, 72))
    deep = number % 7 == 0
    Image.fromarray((levels * 65535).astype(np.uint16) if deep else (levels * 255).astype(np.uint8)).save(path)


@pytest.fixture(scope="module")
def release(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return official_release(tmp_path_factory.mktemp("nih") / "release")


def test_the_official_release_is_read(release: Path) -> None:
    source = nih(root=release)
    samples = {sample.image_id: sample for split in SPLITS for sample in source.samples(split)}
    assert len(samples) == 120
    third = samples["00000002_000"]
    assert third.conditions == ("Cardiomegaly", "Pleural Effusion")
    assert third.prompt == "Chest X-ray of a subject with cardiomegaly and pleural effusion"
    assert (third.patient_id, third.age, third.sex, third.view) == ("2", 22, "F", "PA")
    assert samples["00000003_000"].conditions == ("Pleural Thickening",)
    assert samples["00000001_000"].image.mean() == pytest.approx(127, abs=3)  # 16 bits


def test_the_release_with_another_spelling_of_sex_is_read(tmp_path: Path) -> None:
    source = nih(root=official_release(tmp_path / "release", sex_column="Patient Sex"))
    films = [film.labels for split in SPLITS for film in source.films[split]]
    assert len(films) == 120 and all(film.sex == "FM"[int(film.patient_id) % 2] for film in films)


def test_the_view_is_named_when_asked(release: Path) -> None:
    sample = next(nih(root=release, with_view=True).samples("train"))
    assert sample.prompt.endswith(", posteroanterior view")


def test_no_patient_is_in_two_splits(release: Path) -> None:
    source = nih(root=release, seed=3, conditions=("Pleural Effusion",))
    for split in SPLITS:
        assert {split_of_patient(sample.patient_id, 3) for sample in source.samples(split)} == {split}


def test_the_fingerprint_follows_pixels_labels_and_split(tmp_path: Path) -> None:
    root = official_release(tmp_path / "release")
    before = nih(root=root).fingerprint()
    assert nih(root=root).fingerprint() == before
    assert nih(root=root, seed=1).fingerprint() != before
    assert nih(root=root, resolution_px=72).fingerprint() != before
    _save(root / "images_001" / "images" / "00000001_000.png", 999)
    assert nih(root=root).fingerprint() != before


def test_missing_images_are_counted_and_named(tmp_path: Path) -> None:
    root = official_release(tmp_path / "release", num_patients=20)
    for path in sorted((root / "images_002" / "images").iterdir())[:5]:
        path.unlink()
    named = r"must name only images that are there, but got '00000001_001\.png', .* and 2 more in 5 rows"
    with pytest.raises(CollectionError, match=named):
        nih(root=root)


def test_a_name_in_two_folders_is_refused(tmp_path: Path) -> None:
    root = official_release(tmp_path / "release", num_patients=20)
    _save(root / "images_002" / "images" / "00000003_000.png", 999)
    both = r"images_001/images/00000003_000\.png and images_002/images/00000003_000\.png in line 6"
    with pytest.raises(CollectionError, match=f"must name only images that lie in one folder only, but got {both}"):
        nih(root=root)


def test_a_missing_folder_and_a_missing_label_file_are_told_apart(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="`root` must be a folder"):
        nih(root=tmp_path / "nowhere")
    with pytest.raises(FileNotFoundError, match=r"`root` must hold metadata\.csv or Data_Entry_2017\*\.csv"):
        nih(root=tmp_path)


def test_a_missing_column_is_named(tmp_path: Path) -> None:
    (tmp_path / "metadata.csv").write_text("file,patient_id,age,sex,view\na.png,1,30,F,PA\n")
    with pytest.raises(ValueError, match="but got no labels"):
        nih(root=tmp_path)


def test_a_label_file_without_rows_is_refused(tmp_path: Path) -> None:
    (tmp_path / "metadata.csv").write_text("file,patient_id,age,sex,view,labels\n")
    with pytest.raises(ValueError, match="must have at least one row"):
        nih(root=tmp_path)


def test_an_empty_split_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="must each hold a patient, but got none in"):
        nih(root=official_release(tmp_path / "release", num_patients=2))


def test_conditions_are_answered_with_the_nearest(release: Path) -> None:
    with pytest.raises(ValueError, match=r"got 'Efusion'\. Nearest: Pleural Effusion"):
        nih(root=release, conditions=("Efusion",))


def test_a_condition_that_a_split_lacks_is_refused(tmp_path: Path) -> None:
    root = official_release(tmp_path / "release")
    labels = (root / "Data_Entry_2017_v2020.csv").read_text()
    (root / "Data_Entry_2017_v2020.csv").write_text(labels.replace("Effusion", "Hernia", 1))
    with pytest.raises(ValueError, match="`conditions` must occur in every split, but got 'Hernia'"):
        nih(root=root, conditions=("Hernia",))
    assert "Hernia" not in nih(root=root).conditions


@pytest.mark.slow
@pytest.mark.skipif(not REAL.is_dir(), reason="the real films are not beside the repository")
def test_the_real_films_are_read() -> None:
    source = nih(root=REAL)
    assert sum(source.num_samples(split) for split in SPLITS) == 1000
    assert set(source.conditions) == {
        "Atelectasis",
        "No Finding",
        "Pleural Effusion",
        "Infiltration",
    }  # five films a split
    first = next(source.samples("test"))
    assert first.image.shape == (64, 64)
    patients = [{film.labels.patient_id for film in source.films[split]} for split in SPLITS]
    assert sum(map(len, patients)) == len(set().union(*patients)) == 264


@pytest.mark.skipif(
    not REAL.with_name("nih_cxr14_1000_512").is_dir(), reason="the real films are not beside the repository"
)
def test_large_real_films_are_made_small(tmp_path: Path) -> None:
    large = REAL.with_name("nih_cxr14_1000_512")
    lines = (large / "metadata.csv").read_text().splitlines()
    (tmp_path / "metadata.csv").write_text("\n".join(lines[:1] + lines[1::10]))
    (tmp_path / "images").mkdir()
    for line in lines[1::10]:
        shutil.copy(large / line.partition(",")[0], tmp_path / "images")
    source = nih(root=tmp_path, conditions=("No Finding",))
    assert next(source.samples("validation")).image.shape == (64, 64)

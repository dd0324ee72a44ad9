"""DICOM files: nobody's, synthetic by the standard's own attribute, the film's pixels, and right in the eyes of dciodvfy."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import numpy as np
import pydicom
import pytest

from sweep.generation.pictures import marked
from sweep.generation.prompts import Wanted
from sweep.generation.secondary_capture import Study, write_dicom

LONG = "Chest X-ray of a subject with " + "edema and " * 200 + "pleural effusion \\ épanchement"
RECORD = {
    "num_steps": 20,
    "guidance_scale": 4.0,
    "adapter": {
        "strategy": "lora+textual_inversion",
        "base": {"source": "stable-diffusion-v1-5/stable-diffusion-v1-5"},
    },
}


def film(side: int = 65) -> np.ndarray:
    """Of an odd number of pixels, as DICOM pads these."""
    return np.random.default_rng(0).integers(0, 256, (side, side), np.uint8)


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    folder, study = tmp_path_factory.mktemp("dicom"), Study(record=RECORD, is_marked=True)
    paths = [folder / f"{number}.dcm" for number in range(3)]
    for number, (path, prompt) in enumerate(zip(paths, ("edema", "edema", LONG), strict=True)):
        write_dicom(film(), path, study, Wanted(prompt=prompt, seed=number), number + 1)
    return paths


def test_the_pixels_and_the_words_come_back(files: list[Path]) -> None:
    for number, path in enumerate(files):
        read = pydicom.dcmread(path)
        assert np.array_equal(read.pixel_array, film())
        assert (read.SyntheticData, read.ConversionType, read.BurnedInAnnotation) == ("YES", "SYN", "YES")
        assert f"seed {number}, 20 steps, guidance 4" in read.DerivationDescription
        assert "lora+textual_inversion on stable-diffusion-v1-5" in read.DerivationDescription
        assert "lora+textual_inversion" in read.ManufacturerModelName
        assert (read.BodyPartExamined, "Laterality" in read) == ("CHEST", False)


def test_no_patient_is_named_and_all_identifiers_are_new(files: list[Path]) -> None:
    read = [pydicom.dcmread(path) for path in files]
    assert {str(film.PatientName) + film.PatientID + film.PatientBirthDate + film.PatientSex for film in read} == {""}
    assert len({film.SOPInstanceUID for film in read}) == 3
    assert len({film.StudyInstanceUID for film in read}) == 1
    assert [read[0].SeriesInstanceUID == film.SeriesInstanceUID for film in read] == [True, True, False]
    assert Study(record=RECORD, is_marked=False).uid != read[0].StudyInstanceUID


def errors_of(path: Path) -> list[str]:
    done = subprocess.run(["dciodvfy", str(path)], capture_output=True, text=True, check=False)
    assert "SCImage" in done.stderr
    return [line for line in done.stderr.splitlines() if line.startswith("Error")]


@pytest.mark.skipif(shutil.which("dciodvfy") is None, reason="dciodvfy of dicom3tools is not installed")
def test_dciodvfy_finds_no_error(files: list[Path], tmp_path: Path) -> None:
    """Where its dictionary is older than Synthetic Data, which came in 2023, it does not know that attribute, and no more."""
    for path in files:
        unknown = [line for line in errors_of(path) if "not a recognized standard attribute - (0x0008,0x001c)" in line]
        assert errors_of(path) == unknown
        without = pydicom.dcmread(path)
        del without.SyntheticData
        without.save_as(tmp_path / path.name)
        assert errors_of(tmp_path / path.name) == []


def test_a_mark_is_white_on_black_in_the_corner_and_leaves_the_rest() -> None:
    for shape in ((64, 64), (512, 512), (64, 64, 3)):
        before = np.full(shape, 128, np.uint8)
        after = marked(before)
        changed = np.argwhere((after != before).reshape(*shape[:2], -1).any(-1))
        assert changed[:, 0].min() > shape[0] * 0.8 and changed[:, 1].min() <= shape[0] * 0.05
        assert after.min() == 0 and after.max() > 200
        assert (before == 128).all()

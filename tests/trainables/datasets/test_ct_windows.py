"""CT is seen through the window that is asked for by name, and nothing else is."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from film_folders import save_film
from numpy.typing import NDArray
from pydicom import Dataset
from pydicom.sequence import Sequence
from stand_ins import save_dicom

from trainables.datasets.base import SPLITS, SourceOptions
from trainables.datasets.ct_windows import CT_WINDOWS, window_of
from trainables.datasets.dicom_tree import DicomSource
from trainables.datasets.images import FilmError, open_film
from trainables.datasets.problems import CollectionError

HU = np.arange(-1024, 3072).reshape(64, 64)
CT: dict[str, Any] = {"Modality": "CT", "RescaleSlope": 1, "RescaleIntercept": -1024}


def save_ct(path: Path, **tags: Any) -> Path:
    """Every Hounsfield unit from -1,024 to 3,071, by default in 12 bits without a sign."""
    known = {"Rows": 64, "Columns": 64, "PixelData": (HU + 1024).astype(np.uint16).tobytes()}
    save_dicom(path, 0, **{**CT, **known, **tags})
    return path


def seen(path: Path, window: str) -> NDArray[np.uint8]:
    return np.asarray(open_film(path, window_of(window))[1])


@pytest.mark.parametrize(
    ("window", "center", "width"),
    [("lung", -600, 1500), ("soft_tissue", 50, 400), ("bone", 400, 1800), ("brain", 40, 80)],
)
def test_each_level_lands_where_the_window_says(tmp_path: Path, window: str, center: int, width: int) -> None:
    """By the linear function of PS3.3 C.11.2.1.2.1, and so by name: black, middle grey and white."""
    grey = seen(save_ct(tmp_path / "a.dcm"), window)
    share = np.clip((HU - (center - 0.5)) / (width - 1) + 0.5, 0, 1)
    np.testing.assert_allclose(grey, share * 255, atol=0.51)
    of = dict(zip(HU.ravel().tolist(), grey.ravel().tolist(), strict=True))
    assert of.get(center - width // 2, 0) == 0 and of[center + width // 2] == 255 and 127 <= of[center] <= 130


@pytest.mark.parametrize(
    "tags",
    [
        {"WindowCenter": 2000, "WindowWidth": 10, "VOILUTFunction": "SIGMOID"},
        {"VOILUTSequence": Sequence([Dataset()])},
        {"PixelRepresentation": 1, "RescaleIntercept": 0, "PixelData": HU.astype(np.int16).tobytes(), "BitsStored": 16}
        | {"HighBit": 15},
        {"RescaleSlope": 2, "RescaleIntercept": -1024, "PixelData": ((HU + 1024) // 2).astype(np.uint16).tobytes()},
    ],
)
def test_the_files_own_window_gives_way_and_levels_are_rescaled(tmp_path: Path, tags: dict[str, Any]) -> None:
    plain, other = seen(save_ct(tmp_path / "plain.dcm"), "bone"), seen(save_ct(tmp_path / "a.dcm", **tags), "bone")
    np.testing.assert_allclose(other.astype(int), plain, atol=1)
    assert "RescaleSlope" in tags or np.array_equal(other, plain)


def test_padding_is_black_in_a_window_too(tmp_path: Path) -> None:
    grey = seen(save_ct(tmp_path / "a.dcm", PixelPaddingValue=4095), "lung")
    assert grey.ravel()[-1] == 0 and grey.ravel()[-2] == 255


@pytest.mark.parametrize(
    ("tags", "message"),
    [
        ({"Modality": "DX"}, "a DICOM file of DX, where the window bone is of CT"),
        ({"Modality": None}, "a DICOM file of no Modality, where the window bone is of CT"),
        ({"RescaleType": "US"}, "a CT with a RescaleType of US, so that its levels are no Hounsfield units"),
        ({"RescaleType": "HU", "RescaleSlope": None}, "an empty RescaleSlope"),
    ],
)
def test_what_has_no_hounsfield_units_is_refused(tmp_path: Path, tags: dict[str, Any], message: str) -> None:
    with pytest.raises(FilmError, match=rf"`image` must be readable, but got {message}.*a\.dcm"):
        seen(save_ct(tmp_path / "a.dcm", **tags), "bone")


def test_a_ct_without_a_rescale_and_a_picture_are_refused(tmp_path: Path) -> None:
    save_dicom(tmp_path / "a.dcm", 0, Modality="CT")
    save_film(tmp_path / "a.png", 0)
    for name, came in (("a.dcm", "a CT with no RescaleSlope"), ("a.png", "a picture that is no DICOM")):
        with pytest.raises(FilmError, match=rf"{came}.*Leave --window out, or remove its row"):
            seen(tmp_path / name, "brain")


def tree(root: Path, *, without: int = 0) -> SourceOptions:
    """A hundred and twenty slices of sixty patients, of which the first few are of another modality."""
    for number in range(120):
        save_dicom(root / f"{number}.dcm", number, **{**CT, "Modality": "DX" if number < without else "CT"})
    return SourceOptions(root=root, window="soft_tissue")


@pytest.mark.slow
def test_a_collection_is_seen_through_its_window_and_says_so(tmp_path: Path) -> None:
    options = tree(tmp_path)
    source, plain = DicomSource.create(options), DicomSource.create(replace(options, window=None))
    said = "DICOM: 120 films, each in the CT window soft_tissue, centre 50 HU, width 400 HU."
    assert said in source.said and said not in plain.said
    assert source.fingerprint() != plain.fingerprint()
    films = [[sample for split in SPLITS for sample in each.samples(split)] for each in (source, plain)]
    for ours, whole in zip(*films, strict=True):
        hounsfield = whole.image.astype(float) / 255 * 4095 - 1024
        expected = np.clip((hounsfield - 49.5) / 399 + 0.5, 0, 1) * 255
        np.testing.assert_allclose(ours.image, expected, atol=7)  # half of a grey level of the whole scale is 8 HU


@pytest.mark.slow
@pytest.mark.parametrize("without", [1, 2])
def test_other_modalities_are_left_out_where_they_are_few_and_stop_where_they_are_more(
    tmp_path: Path, without: int
) -> None:
    options = tree(tmp_path, without=without)
    if without == 1:
        (said,) = [sentence for sentence in DicomSource.create(options).said if "rejected" in sentence]
        assert "0.dcm (a DICOM file of DX, where the window soft_tissue is of CT)" in said
    else:
        with pytest.raises(CollectionError, match="of DX, where the window soft_tissue is of CT"):
            DicomSource.create(options)


def test_names_are_answered_with_those_that_there_are() -> None:
    assert window_of(None) is None and set(CT_WINDOWS) == {"lung", "soft_tissue", "bone", "brain"}
    with pytest.raises(ValueError, match="`--window` must be one of lung, soft_tissue, bone, brain, but got 'abdomen'"):
        window_of("abdomen")

"""A preparation on a Ray cluster is, byte for byte, that on this machine's cores."""

from __future__ import annotations

from dataclasses import replace
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
from compressed_dicom import compressed
from film_folders import film_rows, write_table
from PIL import Image
from prepare_runs import prepared
from stand_ins import dicom

from sweep.trials.mapping import in_order_by_ray
from trainables.datasets.base import SourceOptions
from trainables.datasets.dicom_tree import DicomSource
from trainables.datasets.images import FilmError
from trainables.datasets.nih_cxr14 import NihCxr14Source

pytestmark = pytest.mark.usefixtures("ray_cluster")


def files_of(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_the_data_set_is_the_same_bytes_with_a_film_that_cannot_be_read(
    root: Path, ray_address: str, tmp_path: Path
) -> None:
    write_table(root, film_rows())
    broken = sorted((root / "images").iterdir())[3]
    content = broken.read_bytes()
    broken.unlink()
    broken.write_bytes(content[:-200])
    data, said = prepared(root)
    here = tmp_path / "here"
    data.folder.rename(here)
    data, said_there = prepared(root, "--address", ray_address)
    assert said_there == said and "rejected" in said and data.source_fingerprint
    assert files_of(data.folder) == files_of(here) and len(files_of(here)) > 6


def test_a_relative_root_is_that_of_who_gave_it(root: Path, ray_address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Tasks run in other folders."""
    write_table(root, film_rows())
    monkeypatch.chdir(root.parent)
    there, said = prepared(Path(root.name), "--address", ray_address)
    assert "rejected" not in said and sum(count["images"] for count in there.summary().values()) == len(film_rows())


def test_a_film_that_ends_its_decoder_ends_no_task(tmp_path: Path) -> None:
    options = replace(dicom(tmp_path), max_rejects=0.1)
    ending, sound = tmp_path / "0" / "3.dcm", tmp_path / "0" / "5.dcm"
    compressed(sound, "JPEG2000Lossless").replace(sound)
    whole = compressed(ending, "JPEGLosslessProcess14_1")
    ending.write_bytes(whole.read_bytes().replace(b"\xff\xc4", b"\x2f\xc4", 1))
    whole.unlink()
    here, there = DicomSource.create(options), DicomSource.create(replace(options, mapper=in_order_by_ray))
    assert there.fingerprint() == here.fingerprint() and there.said == here.said
    assert any("0/3.dcm" in sentence and "the decoder ended by SIG" in sentence for sentence in there.said)


def test_deep_films_which_are_read_after_all_were_looked_at_are_the_same_pictures(root: Path) -> None:
    write_table(root, film_rows())
    for path in (root / "images").iterdir():
        grey = np.asarray(Image.open(path), np.uint16) * 16
        path.unlink()
        Image.fromarray(grey).save(path)
    here = NihCxr14Source.create(SourceOptions(root=root))
    there = NihCxr14Source.create(SourceOptions(root=root, mapper=in_order_by_ray))
    assert there.fingerprint() == here.fingerprint() and any("16-bit" in sentence for sentence in here.said)
    pairs = list(zip(here.samples("test"), there.samples("test"), strict=True))
    assert pairs and all(np.array_equal(ours.image, theirs.image) for ours, theirs in pairs)


def test_results_come_in_order_and_errors_in_their_place() -> None:
    def zeros_or_error(number: int) -> bytes:
        if number == 150:
            raise FilmError("nothing", Path("a.png"))
        return number.to_bytes(2, "big") + b"\0\0"

    results = in_order_by_ray(zeros_or_error, range(200))
    assert list(islice(results, 150)) == [zeros_or_error(number) for number in range(150)]
    with pytest.raises(FilmError, match=r"`image` must be readable, but got nothing in a\.png"):
        next(results)
    assert list(in_order_by_ray(zeros_or_error, [])) == []

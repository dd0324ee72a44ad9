"""The official list of boxes: the one that torchxrayvision ships is read, and wrong ones are answered."""

from __future__ import annotations

import gzip
from collections import Counter
from importlib.resources import files
from pathlib import Path

import numpy as np
import pytest

from trainables.datasets.nih_boxes import FRAME_PX, FindingBox, read_boxes

HEADER = "Image Index,Finding Label,Bbox [x,y,w,h],,,\n"
ROW = "00000001_000.png,Effusion,100,200,50.5,25\n"


@pytest.fixture(scope="module")
def official(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The list as it was released."""
    packed = files("torchxrayvision") / "data" / "BBox_List_2017.csv.gz"
    path = tmp_path_factory.mktemp("nih") / "BBox_List_2017.csv"
    path.write_bytes(gzip.decompress(packed.read_bytes()))
    return path


def test_the_official_list_is_read(official: Path) -> None:
    boxes = read_boxes(official)
    assert len(boxes) == 984 and len({box.image_id for box in boxes}) == 880
    counts = Counter(box.condition for box in boxes)
    assert (counts["Infiltration"], counts["Pleural Effusion"], counts["Nodule"], len(counts)) == (123, 153, 79, 8)
    assert boxes[0] == FindingBox(
        image_id="00013118_008",
        condition="Atelectasis",
        left=225.084745762712,
        top=547.019216763771,
        width=86.7796610169491,
        height=79.1864406779661,
    )


@pytest.mark.slow
def test_the_official_boxes_are_of_the_released_images_not_of_the_originals(official: Path) -> None:
    """The originals of the very same films are two to three times as wide."""
    boxes = read_boxes(official)
    edges = [(box.left + box.width, box.top + box.height) for box in boxes]
    assert 1000 < np.max(edges) <= FRAME_PX
    table = gzip.decompress((files("torchxrayvision") / "data" / "Data_Entry_2017_v2020.csv.gz").read_bytes()).decode()
    rows = [line.split(",") for line in table.splitlines()[1:]]
    boxed = {f"{box.image_id}.png" for box in boxes}
    assert np.median([int(row[7]) for row in rows if row[0] in boxed]) > 2 * FRAME_PX


def test_a_box_is_scaled_like_its_film(tmp_path: Path) -> None:
    path = tmp_path / "boxes.csv"
    path.write_text(HEADER + ROW)
    box = read_boxes(path)[0]
    assert box.on(1024) == (100, 200, 50.5, 25)
    assert box.on(64) == (6.25, 12.5, 3.15625, 1.5625)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("Image Index,Finding Label,x,y,w,h\n", r"but got no Bbox \[x, h\]\. Use the list as it was released"),
        ("", r"`boxes\.csv` must have the columns Image Index, Finding Label, Bbox \[x, y, w, h\], but got no Image"),
        (HEADER, r"`boxes\.csv` must have at least one box, but got none"),
        (
            HEADER + ROW + ROW.replace("50.5", "950"),
            "must be a box within the 1024 px .* got 100, 200, 950, 25 in line 3",
        ),
        (HEADER + ROW.replace("100", "-1"), "must be a box within the 1024 px"),
        (HEADER + ROW.replace("25", "0"), "must be a box within the 1024 px .* got 100, 200, 50.5, 0 in line 2"),
        (HEADER + ROW.replace("200", "nan"), "must be a box within the 1024 px"),
        (HEADER + ROW.replace("200", "top"), "got 100, top, 50.5, 25"),
        (HEADER + "00000001_000.png,Effusion,100\n", "got 100, None, None, None in line 2"),
        (
            HEADER + ROW.replace("Effusion", ""),
            "`Image Index and Finding Label` must be named, but got '00000001_000.png'",
        ),
    ],
)
def test_lists_that_are_none_are_answered(tmp_path: Path, content: str, message: str) -> None:
    path = tmp_path / "boxes.csv"
    path.write_text(content)
    with pytest.raises(ValueError, match=message):
        read_boxes(path)


def test_a_missing_list_is_answered(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"`boxes` must be a file like BBox_List_2017\.csv, but got"):
        read_boxes(tmp_path / "nowhere.csv")

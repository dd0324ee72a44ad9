"""Where findings lie on films of NIH ChestX-ray14: the official list of boxes, `BBox_List_2017.csv`.

The list has the columns `Image Index`, `Finding Label`, `Bbox [x`, `y`, `w`, `h]`: left, top, width and height in pixels
of the released images of 1024 x 1024 px, not of the larger DICOM originals whose size `Data_Entry_2017.csv` gives. Its
984 boxes on 880 films reach to 1,012 px on the right and 1,022 px at the bottom. Boxes of other films may be given in
the same columns and the same frame of 1024 px.

Source: Wang et al., ChestX-ray8, CVPR 2017; nihcc.app.box.com/v/ChestXray-NIHCC.
"""

from __future__ import annotations

import csv
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path, PurePath

from trainables.datasets.nih_cxr14 import WORDS

FRAME_PX = 1024
"""Side of the released images, in whose pixels boxes are given."""
BOX_WORDS = {**WORDS, "Infiltrate": "Infiltration"}
"""Where the project's words differ from the list's, which are not quite those of the label file either."""
PLACE = ("Bbox [x", "y", "w", "h]")
COLUMNS = ("Image Index", "Finding Label", *PLACE)


@dataclass(frozen=True, kw_only=True, slots=True)
class FindingBox:
    """One box of the list.

    Attributes:
        image_id: of the film, as `NihCxr14Source` names it.
        condition: what is seen there, in the project's words.
        left, top, width, height: pixels of the released image, 0 to `FRAME_PX`.
    """

    image_id: str
    condition: str
    left: float
    top: float
    width: float
    height: float

    def on(self, side_px: int) -> tuple[float, float, float, float]:
        """Left, top, width and height in pixels of the film prepared with this side.

        Preparing resizes the whole film to a square and crops nothing, so that one factor scales all four.
        """
        factor = side_px / FRAME_PX
        return self.left * factor, self.top * factor, self.width * factor, self.height * factor


def read_boxes(file: Path) -> list[FindingBox]:
    """All boxes of a list, in its order.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: a column or a row is missing, or a box is not one within the frame.
    """
    if not file.is_file():
        raise FileNotFoundError(
            f"`boxes` must be a file like BBox_List_2017.csv, but got {str(file)!r}, which is none. Check the path."
        )
    with file.open(newline="", encoding="utf-8-sig") as lines:
        reader = csv.DictReader(lines)
        missing = [column for column in COLUMNS if column not in (reader.fieldnames or ())]
        if missing:
            raise ValueError(
                f"`{file.name}` must have the columns {', '.join(COLUMNS)}, but got no {', '.join(missing)}. "
                "Use the list as it was released."
            )
        boxes = [_box(row, f"line {reader.line_num} of {file.name}") for row in reader]
    if not boxes:
        raise ValueError(f"`{file.name}` must have at least one box, but got none. Use the list as it was released.")
    return boxes


def _box(row: Mapping[str, str | None], where: str) -> FindingBox:
    name, label = ((row[column] or "").strip() for column in COLUMNS[:2])
    if not name or not label:
        raise ValueError(
            f"`{' and '.join(COLUMNS[:2])}` must be named, but got {name!r} and {label!r} in {where}. Mend it."
        )
    left, top, width, height = (_number(row[column]) for column in PLACE)
    within = left >= 0 and top >= 0 and left + width <= FRAME_PX and top + height <= FRAME_PX
    if not (within and width > 0 and height > 0):
        came = ", ".join(str(row[column]) for column in PLACE)
        raise ValueError(
            f"`left, top, width, height` must be a box within the {FRAME_PX} px of the released images, but got {came} "
            f"in {where}. Scale boxes of another size."
        )
    return FindingBox(
        image_id=PurePath(name).stem,
        condition=BOX_WORDS.get(label, label),
        left=left,
        top=top,
        width=width,
        height=height,
    )


def _number(text: str | None) -> float:
    """The number, or one that no comparison holds for."""
    try:
        return float(text or "")
    except ValueError:
        return math.nan

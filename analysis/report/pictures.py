"""Pictures as they stand in a page: small, inside it; large ones lie beside it."""

from __future__ import annotations

import base64
import io
from functools import lru_cache
from pathlib import Path
from typing import Final

from PIL import Image

from analysis.run_folder import word_maps_beside

MAX_PICTURE_PX: Final = 1100
MAX_PICTURE_BYTES: Final = 60_000
MAX_MAPS_BYTES: Final = 15_000
"""The most bytes of the maps of words, which take their room from the sheet that they belong to."""
QUALITIES: Final = (85, 70, 50, 30)
"""Qualities of WebP that are tried one after the other until a picture fits; then it is made smaller."""
KEPT: Final = 512
"""Small pictures that a process remembers: of a page that is written anew at each end of a trial, all but one are the
same."""


def picture(path: Path, max_bytes: int = MAX_PICTURE_BYTES) -> str:
    """A picture as a data address of at most `max_bytes` before base64, and at most `MAX_PICTURE_PX` wide."""
    stat = path.stat()
    return embedded(_small(path, max_bytes, (stat.st_mtime_ns, stat.st_size)), "webp")


def sheet_picture(sheet: Path) -> str:
    """A sheet of films as a data address, so small that with the maps of words beside it `MAX_PICTURE_BYTES` are kept."""
    return picture(sheet, MAX_PICTURE_BYTES - MAX_MAPS_BYTES * word_maps_beside(sheet).is_file())


def embedded(content: bytes, kind: str) -> str:
    """A data address of a picture's content."""
    return f"data:image/{kind};base64,{base64.b64encode(content).decode()}"


@lru_cache(maxsize=KEPT)
def _small(path: Path, max_bytes: int, state: tuple[int, int]) -> bytes:
    """The picture as WebP; time and size of the file tell whether it is still the same."""
    with Image.open(path) as image:
        small = image.convert("RGB")
    small.thumbnail((MAX_PICTURE_PX, 4 * MAX_PICTURE_PX))
    while True:
        for quality in QUALITIES:
            content = _webp(small, quality)
            if len(content) <= max_bytes:
                return content
        small = small.resize((max(1, small.width * 3 // 4), max(1, small.height * 3 // 4)))


def _webp(image: Image.Image, quality: int) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, format="WEBP", quality=quality, method=2)
    return buffer.getvalue()

"""Films as images of an MLflow run, as its image grid reads them."""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from PIL import Image

from sweep.records.tracking.store import Runs, link, scratch

SAMPLES: Final = "samples"
"""Key of the films of a trial, and of the knee on the parent run."""
THUMBNAIL_PX: Final = 256
LOGGED_IMAGES: Final = "mlflow.loggedImages"


def keep_pictures(runs: Runs, run_id: str, pictures: Mapping[str, Path]) -> None:
    """Add pictures to a run by their keys; the same again adds nothing.

    Those that are not there or cannot be read are left out: a picture is no result, and must not cost a sweep its records.

    `MlflowClient.log_image` would copy the file, and give it a new name each time.

    Args:
        runs: the runs of the sweep.
        run_id: MLflow's id of the run.
        pictures: files by key.
    """
    there = {key: path for key, path in pictures.items() if _is_picture(path)}
    if not there:
        return
    with scratch(runs) as folder:
        files = [file for key, path in there.items() for file in _files(folder, key, path)]
        runs.keep(run_id, files, "images")
    runs.client.set_tag(run_id, LOGGED_IMAGES, "True")


def _is_picture(path: Path) -> bool:
    try:
        with Image.open(path) as picture:
            picture.load()
    except OSError:  # Pillow's own errors of files that are none are such too
        return False
    return True


def _files(folder: Path, key: str, path: Path) -> tuple[Path, Path]:
    """The picture and its thumbnail under the names by which MLflow's pages know them."""
    written_ms = int(path.stat().st_mtime * 1000)
    name = f"{key}+step+0+timestamp+{written_ms}+{uuid.uuid5(uuid.NAMESPACE_URL, key)}"
    whole, small = folder / f"{name}.png", folder / f"{name}+compressed.webp"
    link(path, whole)
    with Image.open(path) as picture:
        picture.thumbnail((THUMBNAIL_PX, THUMBNAIL_PX))
        picture.save(small)
    return whole, small

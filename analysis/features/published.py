"""Weights that others publish as one file: found where their own programs keep it, fetched where it is missing."""

from __future__ import annotations

from pathlib import Path

from torchxrayvision.utils import download

from analysis.features.weights import read_state, write_state


def published_weights(name: str, url: str, folder: Path) -> Path:
    """The published file, converted to safetensors once.

    Args:
        name: the extractor's, for the message.
        url: where it is published.
        folder: where its publisher's program keeps it.

    Raises:
        FileNotFoundError: it is neither there nor to be had; the message says where to put it.
        ValueError: what is there is no file of weights.
    """
    original = folder / Path(url).name
    converted = original.with_suffix(".safetensors")
    if converted.exists():
        return converted
    if not original.exists():
        _fetch(name, url, original)
    write_state(read_state(original), converted)
    return converted


def _fetch(name: str, url: str, path: Path) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        download(url, str(path))
    except OSError as error:  # requests' errors are of this kind
        raise FileNotFoundError(
            f"`{name}` must have its published weights, but got none at {str(path)!r} and could not fetch them: {error}. "
            f"Put {url} there, or give a copy's path with --set evaluation.extractor_weights=FILE, "
            "or use the bundled extractor mini."
        ) from error

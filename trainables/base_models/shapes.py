"""Base models without weights: every module and shape on the meta device, to count with."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from trainables.base_models.models import COMPONENTS, MINI_FOLDER, BaseIdentity, DiffusionModels, component_on_meta
from trainables.base_models.sd15 import bundled_tokenizer, sd15_on_meta


def base_on_meta(base: str) -> DiffusionModels:
    """A base model's modules on the meta device, from its configuration alone.

    Args:
        base: `sd15`, `mini`, or a folder of Stable Diffusion 1.5's layout; its weights need not be there.

    Raises:
        FileNotFoundError: the folder lacks a part's config.json.
        ValueError: a config.json is damaged or is another model's.
    """
    if base == "sd15":
        return sd15_on_meta()
    return folder_on_meta(base, MINI_FOLDER if base == "mini" else Path(base).expanduser())


def folder_on_meta(name: str, folder: Path) -> DiffusionModels:
    """The same of a folder, under the name that is given to it."""
    for part in COMPONENTS:
        _expect_config(folder / part)
    try:
        parts: dict[str, Any] = {name: component_on_meta(folder, name) for name in COMPONENTS}
    except (OSError, ValueError, TypeError) as error:
        raise ValueError(
            f"`base` must hold the configurations of Stable Diffusion 1.5's classes, but got {str(folder)!r}: {error}. "
            "Save the folder anew with `StableDiffusionPipeline.save_pretrained`."
        ) from error
    identity = BaseIdentity(name=name, source=folder.name, weights_hash="none")
    return DiffusionModels(**parts, tokenizer=bundled_tokenizer(), scheduler_config={}, base=identity)


def _expect_config(part: Path) -> None:
    if not (part / "config.json").is_file():
        raise FileNotFoundError(
            f"`base` must be a folder with unet/, vae/ and text_encoder/, each with a config.json, but got none in {str(part)!r}. "
            "Save one with `StableDiffusionPipeline.save_pretrained`, or give mini or sd15."
        )

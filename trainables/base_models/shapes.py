"""Base models without weights: every module and shape on the meta device, to count with."""

from __future__ import annotations

from functools import cache, lru_cache
from pathlib import Path
from typing import Any

from trainables.base_models.layouts import configuration_state, state_of
from trainables.base_models.models import MINI_FOLDER, BaseIdentity, DiffusionModels, parts_on_meta, resolve_base
from trainables.base_models.sd15 import bundled_tokenizer, sd15_on_meta


def base_on_meta(base: str) -> DiffusionModels:
    """A base model's modules on the meta device, from its configuration alone. They are the caller's own.

    Args:
        base: `sd15`, `mini`, a folder of Stable Diffusion 1.5's layout, whose weights need not be there, or a file that holds
            such a model.

    Raises:
        FileNotFoundError: the folder lacks a part's config.json.
        ValueError: a config.json is damaged or another model's, or the parts do not belong together.
    """
    if base == "sd15":
        return _sd15().sharing()
    path = MINI_FOLDER if base == "mini" else Path(base).expanduser()
    folder = resolve_base(base) if path.is_file() else path
    return _of_folder(base, folder, configuration_state(folder)).sharing()


@cache
def _sd15() -> DiffusionModels:
    """Made once a process: copies that share no module with it take a sixth of the time."""
    return sd15_on_meta()


@lru_cache(maxsize=8)
def _of_folder(name: str, folder: Path, state: str) -> DiffusionModels:
    """The same of a folder, once for each state of its configurations."""
    return folder_on_meta(name, folder)


def state_of_shapes(base: str) -> str:
    """Another string when a file changes of a base that `base_on_meta` takes; what is counted on its shapes may be kept by it."""
    path = Path(base).expanduser()
    return state_of(path) if path.is_dir() else ""


def folder_on_meta(name: str, folder: Path) -> DiffusionModels:
    """The same of a folder, under the name that is given to it."""
    parts: dict[str, Any] = parts_on_meta(folder)
    identity = BaseIdentity(name=name, source=folder.name, weights_hash="none")
    return DiffusionModels(**parts, tokenizer=bundled_tokenizer(), scheduler_config={}, base=identity)

"""Bases that come as something else than a folder with plain safetensors: seen as one, by links and copies made once."""

from __future__ import annotations

import hashlib
import json
import pickle
import re
import shutil
import tempfile
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Final

import torch
from diffusers import StableDiffusionPipeline
from diffusers.loaders.single_file_utils import SingleFileComponentError, infer_diffusers_model_type
from huggingface_hub import constants, snapshot_download
from torch import Tensor

from trainables.base_models.checking import PARTS, PIPELINE_CARD, STEMS, shapes_in, weight_files
from trainables.tensor_files import save_tensors

SINGLE_FILE: Final = ".safetensors"
PICKLES: Final = {"unet": "diffusion_pytorch_model", "vae": "diffusion_pytorch_model", "text_encoder": "pytorch_model"}
"""How the names of a part's *.bin files begin."""
SHARD: Final = re.compile(r"-\d+-of-\d+\.")
"""The part of a file's name that says that it holds some of the weights; an index names all such files."""
SINGLE_FILE_PARTS: Final = {
    "unet": "model.diffusion_model.", "vae": "first_stage_model.", "text_encoder": "cond_stage_model.",
}  # fmt: skip
"""How the names of a part's tensors begin in a single file of Stable Diffusion 1.x or 2.x."""
CONFIGURATIONS: Final = ("*.json", "*/*.json", "*/*.txt")
"""Files of a pipeline folder that are configurations or belong to the tokenizer."""
LOADABLE: Final = ("v1", "v2")
"""What diffusers calls the single files that can be adapted."""


def plain_folder(base: Path, hub_id: str) -> Path:
    """A base on this machine as a folder with plain safetensors: itself, or one that is made once for all.

    Made are links to weights that are there as a variant alone (`*.fp16.safetensors`), copies of those that are there as
    *.bin alone, and a folder out of a single *.safetensors file. They lie in `radiograph-sweep` under HF_HOME.

    Args:
        base: a pipeline folder, or a file that holds a whole model.
        hub_id: where a single file's configurations and tokenizer are taken from, unless a folder of its name or the
            folder that it lies in has them.

    Raises:
        FileNotFoundError: a single file's configurations are not to be had.
        OSError: the folder cannot be written.
        ValueError: the file is no such model, or a *.bin file holds more than tensors.
    """
    if base.is_file():
        beside = _beside(base)
        state = f"{state_of(base)}-{configuration_state(beside)}" if beside else state_of(base)
        return _made_once(base, state, lambda to: _split(base, hub_id, to))
    if all(weight_files(base, part) or not _substitute(base, part) for part in PARTS):
        return base
    return _made_once(base, state_of(base), lambda to: _link(base, to))


def state_of(base: Path) -> str:
    """Names, sizes and times of a base's files as 16 hex digits; others when a file changes."""
    return _state(_files_of(base))


def configuration_state(folder: Path) -> str:
    """The state of a folder's configurations and tokenizer alone: weights of many a model may lie there."""
    return _state(sorted(file for pattern in CONFIGURATIONS for file in folder.glob(pattern) if file.is_file()))


def _state(files: Iterable[Path]) -> str:
    stats = [(str(file), file.stat().st_size, file.stat().st_mtime_ns) for file in files]
    return hashlib.sha256(json.dumps(stats).encode()).hexdigest()[:16]


def _files_of(base: Path) -> list[Path]:
    """The file itself, or those of a folder but for what is hidden, such as `.git`."""
    if base.is_file():
        return [base]
    names = sorted(file.relative_to(base) for file in base.rglob("*") if file.is_file())
    return [base / name for name in names if not any(part.startswith(".") for part in name.parts)]


def _made_once(base: Path, state: str, make: Callable[[Path], None]) -> Path:
    root = Path(constants.HF_HOME).expanduser() / "radiograph-sweep"
    made = root / f"{base.stem}-{state}"
    if made.is_dir():
        return made
    try:
        root.mkdir(parents=True, exist_ok=True)
        partial = Path(tempfile.mkdtemp(prefix=".partial-", dir=root))
    except OSError as error:
        raise OSError(
            f"`HF_HOME` must be a folder that can be written, to hold {base.name!r} as a plain folder, but got {str(root.parent)!r} "
            f"({error.strerror}). Set HF_HOME to another, or save the base with `StableDiffusionPipeline.save_pretrained`."
        ) from error
    try:
        make(partial)
        if not made.is_dir():  # another process may have been faster
            partial.replace(made)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return made


def _substitute(base: Path, part: str) -> Path | None:
    """The file to read a part's weights or their index from, where no plain safetensors are there."""
    folder, stem = base / part, STEMS[part]
    whole = [file for file in sorted(folder.glob(f"{stem}.*.safetensors")) if not SHARD.search(file.name)]
    variants = [*whole, *sorted(folder.glob(f"{stem}.safetensors.index.*.json"))]
    pickled = [folder / f"{PICKLES[part]}.bin", *sorted(folder.glob(f"{PICKLES[part]}.*.bin"))]
    return next((file for file in [*variants, *pickled] if file.is_file()), None)


def _link(base: Path, to: Path) -> None:
    """Everything linked, and a part's substitute under the name that loaders look for."""
    for file in _files_of(base):
        link = to / file.relative_to(base)
        link.parent.mkdir(parents=True, exist_ok=True)
        link.symlink_to(file.absolute())
    for part in PARTS:
        substitute = _substitute(base, part)
        if weight_files(base, part) or substitute is None:
            continue
        if substitute.suffix == ".bin":
            save_tensors(unpickled(substitute), to / part / f"{STEMS[part]}.safetensors", {"format": "pt"})
        else:
            name = f"{STEMS[part]}.safetensors" + (".index.json" if substitute.suffix == ".json" else "")
            (to / part / name).symlink_to(substitute.absolute())


def unpickled(file: Path) -> dict[str, Tensor]:
    """The tensors of a *.bin file, read without running what else a pickle may hold.

    Raises:
        ValueError: it holds more than tensors, or is damaged.
    """
    try:
        content = torch.load(file, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError, ValueError) as error:
        raise _not_tensors(file, str(error).splitlines()[0]) from error
    if not isinstance(content, dict) or not all(isinstance(value, Tensor) for value in content.values()):
        raise _not_tensors(file, type(content).__name__)
    return {name: tensor.clone(memory_format=torch.contiguous_format) for name, tensor in content.items()}


def _not_tensors(file: Path, came: str) -> ValueError:
    return ValueError(
        f"`{file.name}` of a base must hold tensors alone, but got {str(file)!r} ({came}). Get its *.safetensors instead: "
        "a pickle may run code, and is not read otherwise."
    )


def _split(file: Path, hub_id: str, to: Path) -> None:
    """Write a single file as a pipeline folder."""
    _expect_single_file(file)
    configuration = _configuration_of(file, hub_id)
    try:
        pipeline = StableDiffusionPipeline.from_single_file(
            file, config=str(configuration), local_files_only=True, safety_checker=None, feature_extractor=None,
            requires_safety_checker=False,
        )  # fmt: skip
        pipeline.save_pretrained(to, safe_serialization=True)
    except (SingleFileComponentError, ValueError, RuntimeError, KeyError, NotImplementedError) as error:
        raise ValueError(
            f"`base` must be a file that fits the configurations beside it, but got {str(file)!r} with those in "
            f"{str(configuration)!r}: {error}. Put the folder of its own configurations beside it, as {file.stem}/."
        ) from error


def _expect_single_file(file: Path) -> None:
    if file.suffix != SINGLE_FILE:
        raise ValueError(
            f"`base` must be a folder or a *{SINGLE_FILE} file, but got {str(file)!r}. Get the model in that format: "
            "a *.ckpt file may run code, and is not read."
        )
    shapes = shapes_in(file)
    lacking = [
        part for part, prefix in SINGLE_FILE_PARTS.items() if not any(name.startswith(prefix) for name in shapes)
    ]
    kind = infer_diffusers_model_type({name: torch.empty(shape, device="meta") for name, shape in shapes.items()})
    if kind not in LOADABLE or lacking:
        came = f"no {' and no '.join(lacking)}" if kind in LOADABLE else f"what diffusers takes for {kind!r}"
        raise ValueError(
            f"`base` must be a whole text-to-image model of Stable Diffusion 1.x or 2.x, but got {came} in {str(file)!r}, whose "
            f"first tensor is {min(shapes, default='none')}. Give such a model's file or folder."
        )


def _beside(file: Path) -> Path | None:
    """The folder of this machine that has the configurations of a single file."""
    folders = (file.with_suffix(""), file.parent)
    return next((folder for folder in folders if (folder / PIPELINE_CARD).is_file()), None)


def _configuration_of(file: Path, hub_id: str) -> Path:
    """The folder with configurations and tokenizer for a single file: of its name, the one that it lies in, or the hub's."""
    if beside := _beside(file):
        return beside
    try:
        return Path(
            snapshot_download(hub_id, allow_patterns=list(CONFIGURATIONS), ignore_patterns=["safety_checker/*"])
        )
    except (OSError, ValueError) as error:
        raise FileNotFoundError(
            f"`base` {str(file)!r} must have configurations and a tokenizer, but got none beside it and none from {hub_id} "
            f"({type(error).__name__}). Connect to the network once, or put the model's folder without weights beside it, as "
            f"{file.stem}/."
        ) from error

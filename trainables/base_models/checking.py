"""Whether a base model can work, told by its configurations and by the names and shapes in its files, before any weight is read."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import diffusers
import transformers
from diffusers import DDPMScheduler
from safetensors import SafetensorError, safe_open
from torch import nn
from transformers import AutoTokenizer

PREDICTIONS: Final = ("epsilon", "v_prediction")
BETA_SCHEDULES: Final = ("linear", "scaled_linear", "squaredcos_cap_v2")
"""Noise schedules that the solver of sampling knows as well as the noise scheduler of training."""
LIBRARIES: Final = {"diffusers": diffusers, "transformers": transformers}
CLASSES: Final = {
    "unet": ("UNet2DConditionModel",),
    "vae": ("AutoencoderKL",),
    "text_encoder": ("CLIPTextModel", "BertModel", "RobertaModel"),
}
"""Classes that a pipeline's card may name for each part; other text encoders give states of another kind."""
PARTS: Final = ("unet", "vae", "text_encoder")
STEMS: Final = {"unet": "diffusion_pytorch_model", "vae": "diffusion_pytorch_model", "text_encoder": "model"}
"""How the names of the files begin that diffusers and transformers read a part's weights from."""
PIPELINE_CARD: Final = "model_index.json"
OTHER_INPUTS: Final = {
    5: "a depth-to-image model",
    7: "an upscaler",
    8: "an image-editing model",
    9: "an inpainting model",
}
"""What kind of model a U-Net is of that takes so many channels."""
ADDED_CONDITIONING: Final = (
    "addition_embed_type", "class_embed_type", "num_class_embeds", "time_cond_proj_dim",
)  # fmt: skip
PREFIXES: Final = ("text_model.", "bert.", "roberta.")
"""What stands before the names of a text encoder's tensors where it was saved as a part of a larger model."""
POINTER: Final = b"version https://git-lfs"
"""How the small file begins that Git leaves in the place of a large one."""


def expect_configurations(folder: Path) -> None:
    """The parts of a pipeline folder must be of Stable Diffusion's classes, and its noise schedule one that is known.

    Args:
        folder: with `unet`, `vae` and `text_encoder`; `model_index.json` and `scheduler` are looked at where they are.

    Raises:
        FileNotFoundError: a part has no config.json.
        ValueError: a file is damaged, a part is of another class, or the schedule is not known.
    """
    for part in PARTS:
        if not (folder / part / "config.json").is_file():
            raise FileNotFoundError(
                f"`base` must be a folder with unet/, vae/ and text_encoder/, each with a config.json, but got none in "
                f"{str(folder / part)!r}{_kind(folder)}. Save one with `StableDiffusionPipeline.save_pretrained`, or give mini or sd15."
            )
    for part in ("unet", "vae"):
        due = CLASSES[part][0]
        came = read_json(folder / part / "config.json").get("_class_name", due)
        if came != due:
            raise ValueError(
                f"`base` must have {due} as its {part}, but got {came} in {str(folder)!r}{_kind(folder)}. "
                "Use a model of Stable Diffusion 1.x or 2.x."
            )
    if (folder / "scheduler").is_dir():
        _expect_schedule(folder / "scheduler" / "scheduler_config.json")


def read_json(file: Path) -> dict[str, Any]:
    """The object that a file of a base model holds.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is no JSON object.
    """
    if not file.is_file():
        raise FileNotFoundError(
            f"`base` must have a {file.name}, but got none in {str(file.parent)!r}. Download it anew."
        )
    try:
        content = json.loads(file.read_text())
    except ValueError as error:
        raise ValueError(
            f"`base` must hold the configurations of Stable Diffusion 1.5's classes, but got {str(file)!r}: {error}. "
            "Save the folder anew with `StableDiffusionPipeline.save_pretrained`."
        ) from error
    if not isinstance(content, dict):
        raise ValueError(f"`{file.name}` of a base must be a JSON object, but got {str(file)!r}. Save the folder anew.")
    return content


def _kind(folder: Path) -> str:
    """What a folder says that it is, to be put behind its name."""
    card = folder / PIPELINE_CARD
    return f", a {read_json(card).get('_class_name')}" if card.is_file() else ""


def _expect_schedule(file: Path) -> None:
    config = read_json(file)
    prediction, schedule = config.get("prediction_type", PREDICTIONS[0]), config.get("beta_schedule")
    if prediction not in PREDICTIONS:
        raise ValueError(
            f"`prediction_type` must be {' or '.join(PREDICTIONS)}, but got {prediction!r} in {str(file)!r}. Use another base model."
        )
    known = config.get("trained_betas") is not None or schedule in BETA_SCHEDULES
    if not known or not all(isinstance(config.get(key), int | float) for key in ("beta_start", "beta_end")):
        raise ValueError(
            f"`beta_schedule` must be {', '.join(BETA_SCHEDULES[:-1])} or {BETA_SCHEDULES[-1]} with its beta_start and beta_end, "
            f"but got {schedule!r} of a {config.get('_class_name')} in {str(file)!r}. Use a model of Stable Diffusion 1.x or 2.x."
        )
    if not _takes_signal_away(config):
        came = ", ".join(f"{key} {config.get(key)!r}" for key in ("num_train_timesteps", "beta_start", "beta_end"))
        raise ValueError(
            f"`noise schedule` of a base must take the signal away step by step, but got {came} in {str(file)!r}. "
            "Copy the scheduler_config.json of the model that it was made from."
        )


def _takes_signal_away(config: dict[str, Any]) -> bool:
    """Whether each step of a schedule takes a share between 0 and 1 of a latent's signal, and one of them any."""
    try:
        taken = DDPMScheduler.from_config(config).betas
    except (ValueError, TypeError, RuntimeError, OverflowError):  # diffusers and torch check no numbers
        return False
    return bool(((taken >= 0) & (taken <= 1)).all() and taken.any())  # not so for NaN, nor without steps


def expect_architecture(parts: Mapping[str, Any], folder: Path) -> None:
    """The parts of a base must fit each other, and its U-Net be conditioned on nothing but a time step and a prompt.

    Args:
        parts: `unet`, `vae` and `text_encoder`, on any device.
        folder: named in messages.

    Raises:
        ValueError: they do not, or it is.
    """
    unet, vae, text = (parts[name].config for name in PARTS)
    _expect_prompt_alone(unet, folder)
    _expect_channels(unet, vae, folder)
    _expect_width(unet, text, folder)
    _expect_scale(vae, folder)
    if not (isinstance(unet.sample_size, int) and unet.sample_size >= 1):
        raise ValueError(
            f"`sample_size` of the U-Net must be the side of its latents, but got {unet.sample_size!r} in {str(folder)!r}. "
            "Write it into unet/config.json: the side of the images that it was trained on, divided by 8."
        )


def _expect_scale(vae: Any, folder: Path) -> None:
    scale = vae.scaling_factor
    if not (isinstance(scale, int | float) and 0 < scale < math.inf):
        raise ValueError(
            f"`scaling_factor` of the autoencoder must be a positive number, but got {scale!r} in "
            f"{str(folder)!r}. Write the model's own into vae/config.json, 0.18215 for Stable Diffusion 1.x and 2.x."
        )


def _expect_prompt_alone(unet: Any, folder: Path) -> None:
    added = {key: unet.get(key) for key in ADDED_CONDITIONING if unet.get(key) is not None}
    if unet.encoder_hid_dim_type not in (None, "text_proj"):
        added["encoder_hid_dim_type"] = unet.encoder_hid_dim_type
    if added:
        named = ", ".join(f"{key} {value!r}" for key, value in added.items())
        raise ValueError(
            f"`base` must have a U-Net conditioned on a time step and a prompt alone, but got {named} in "
            f"{str(folder)!r}{_kind(folder)}. Use a model of Stable Diffusion 1.x or 2.x."
        )


def _expect_channels(unet: Any, vae: Any, folder: Path) -> None:
    due, taken, given = vae.latent_channels, unet.in_channels, unet.out_channels
    if (taken, given) != (due, due):
        kind = f", as {OTHER_INPUTS[taken]}" if taken in OTHER_INPUTS else ""
        raise ValueError(
            f"`base` must have a U-Net that takes and gives the {due} channels of its autoencoder's latents, but got one that "
            f"takes {taken} and gives {given}{kind}, in {str(folder)!r}. Use the text-to-image model that it was made from."
        )


def _expect_width(unet: Any, text: Any, folder: Path) -> None:
    due, width = unet.encoder_hid_dim or unet.cross_attention_dim, text.hidden_size
    if width != due:
        raise ValueError(
            f"`text_encoder` must give states {due} wide, as the U-Net takes them, but got {width} in {str(folder)!r}. "
            "Use a base whose parts belong together."
        )


def expect_files(parts: Mapping[str, nn.Module], folder: Path) -> None:
    """The files of a pipeline folder must hold its parts' tensors, a tokenizer for them, and a noise schedule.

    Args:
        parts: `unet`, `vae` and `text_encoder`, on the meta device.
        folder: theirs.

    Raises:
        FileNotFoundError: a file is missing.
        ValueError: a file is damaged or holds other tensors, or the tokenizer has more tokens than the text encoder.
    """
    _expect_card(folder)
    read_json(folder / "scheduler" / "scheduler_config.json")
    for name, part in parts.items():
        _expect_tensors(name, part, folder)
    _expect_tokenizer(parts["text_encoder"], folder / "tokenizer")


def _expect_card(folder: Path) -> None:
    """The card must name a class for each part, as diffusers loads by it."""
    card = read_json(folder / PIPELINE_CARD)
    for name in (*PARTS, "tokenizer", "scheduler"):
        came = card.get(name)
        library, class_name = map(str, came) if isinstance(came, list) and len(came) == 2 else ("", "")
        if not hasattr(LIBRARIES.get(library), class_name) or class_name not in CLASSES.get(name, (class_name,)):
            due = f"the class of its {name}{', ' if name in CLASSES else ''}{' or '.join(CLASSES.get(name, ()))}"
            raise ValueError(
                f"`{PIPELINE_CARD}` of a base must name {due}, but got {came!r} in {str(folder)!r}. "
                f"Copy the {PIPELINE_CARD} of the model that it was made from."
            )


def weight_files(folder: Path, name: str) -> list[Path]:
    """The files that a part's weights are read from, sorted; none where there are none in safetensors' format."""
    whole = folder / name / f"{STEMS[name]}.safetensors"
    index = whole.with_name(f"{whole.name}.index.json")
    if whole.is_file() or not index.is_file():
        return [whole] if whole.is_file() else []
    return sorted({folder / name / file for file in read_json(index)["weight_map"].values()})


def shapes_in(file: Path) -> dict[str, tuple[int, ...]]:
    """Names and shapes of the tensors in a safetensors file, whose length is checked too.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is damaged.
    """
    if not file.is_file():
        raise FileNotFoundError(f"`base` must have all its weights, but got no {str(file)!r}. Download it anew.")
    with file.open("rb") as stream:
        is_pointer = stream.read(len(POINTER)) == POINTER
    if is_pointer:
        raise ValueError(
            f"`base` must have its weights, but got the pointer that Git leaves for them, {str(file)!r}. "
            "Run `git lfs pull` in the folder, or download the file."
        )
    try:
        with safe_open(file, framework="pt") as tensors:
            return {name: tuple(tensors.get_slice(name).get_shape()) for name in tensors.keys()}  # noqa: SIM118
    except SafetensorError as error:
        raise ValueError(
            f"`{file.name}` must be a whole safetensors file, but got {str(file)!r}: {error}. Download it anew."
        ) from error


def _expect_tensors(name: str, part: nn.Module, folder: Path) -> None:
    files = weight_files(folder, name)
    if not files:
        raise FileNotFoundError(
            f"`base` must have the weights of its {name}, but got no {STEMS[name]}.safetensors in {str(folder / name)!r}. "
            "Download the folder anew, with its large files."
        )
    due = {key: tuple(tensor.shape) for key, tensor in part.state_dict().items()}
    came = _renamed(name, part, {key: shape for file in files for key, shape in shapes_in(file).items()})
    faults = list(_differences(due, came, extra=name != "text_encoder"))
    faults += [
        f"{key} in whole numbers, as quantised weights,"
        for key in _renamed(name, part, _quantised(files))
        if key in due
    ]
    if faults:
        more = f" and {len(faults) - 1} more" if len(faults) > 1 else ""
        raise ValueError(
            f"`{name}` of a base must have the tensors that its config.json describes, but got {faults[0]}{more}, in "
            f"{str(folder / name)!r}. Weights and configuration must come from the same model: download the folder anew."
        )


def _quantised(files: Sequence[Path]) -> dict[str, tuple[int, ...]]:
    """The tensors of safetensors files whose numbers are whole: read as weights they would be others than the model's."""
    shapes: dict[str, tuple[int, ...]] = {}
    for file in files:
        with safe_open(file, framework="pt") as tensors:
            slices = {name: tensors.get_slice(name) for name in tensors.keys()}  # noqa: SIM118
            shapes |= {
                name: tuple(tensor.get_shape()) for name, tensor in slices.items() if "F" not in tensor.get_dtype()
            }
    return shapes


def _renamed(name: str, part: Any, shapes: dict[str, tuple[int, ...]]) -> dict[str, tuple[int, ...]]:
    """Names as the part has them today; diffusers and transformers read older ones too."""
    if name == "text_encoder":
        return {_without_prefix(key): shape for key, shape in shapes.items()}
    part._fix_state_dict_keys_on_load(shapes)
    return shapes


def _without_prefix(key: str) -> str:
    key = key.replace("LayerNorm.gamma", "LayerNorm.weight").replace("LayerNorm.beta", "LayerNorm.bias")
    return next((key.removeprefix(prefix) for prefix in PREFIXES if key.startswith(prefix)), key)


def _differences(
    due: Mapping[str, tuple[int, ...]], came: Mapping[str, tuple[int, ...]], *, extra: bool
) -> Iterator[str]:
    for key, shape in due.items():
        if key not in came:
            yield f"no {key}"
        elif came[key] != shape:
            yield f"{key} of shape {list(came[key])} where {list(shape)} is due"
    yield from (f"{key}, which is none of them" for key in came.keys() - due.keys() if extra)


def _expect_tokenizer(text_encoder: Any, folder: Path) -> None:
    try:
        num_tokens = len(AutoTokenizer.from_pretrained(folder, local_files_only=True))
    except (OSError, ValueError, TypeError) as error:
        raise FileNotFoundError(
            f"`base` must have a tokenizer, but got none that can be read in {str(folder)!r}. Copy the folder `tokenizer` of "
            "the model that it was made from."
        ) from error
    if num_tokens > text_encoder.config.vocab_size:
        raise ValueError(
            f"`tokenizer` of a base must have no more tokens than its text encoder, {text_encoder.config.vocab_size}, but got "
            f"{num_tokens} in {str(folder)!r}. Use a base whose parts belong together."
        )

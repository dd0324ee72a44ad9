"""Vision transformers of the model hub, by their id or a local folder: CLIP's picture side and RAD-DINO."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import torch
from safetensors import SafetensorError
from torch import Tensor
from transformers import AutoImageProcessor, CLIPVisionModelWithProjection, Dinov2Model, PreTrainedConfig
from transformers.utils import logging as transformers_logging

from analysis.features.base import NetworkExtractor, as_rgb
from analysis.features.weights import hash_state

CONFIG, PREPROCESSOR = "config.json", "preprocessor_config.json"
STEPS = (
    "do_resize",
    "size",
    "resample",
    "do_center_crop",
    "crop_size",
    "do_rescale",
    "rescale_factor",
    "do_normalize",
    "image_mean",
    "image_std",
)
"""Settings of what a processor does to a picture that is RGB already."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Architecture:
    """A kind of network on the hub.

    Attributes:
        network: class that reads its weights.
        width: key of the configuration that tells the number of features.
        features: field of the network's output that holds them.
    """

    network: Any
    width: str
    features: str


CLIP = Architecture(network=CLIPVisionModelWithProjection, width="projection_dim", features="image_embeds")
DINOV2 = Architecture(network=Dinov2Model, width="hidden_size", features="pooler_output")
ARCHITECTURES: Final[dict[str, dict[str, Architecture]]] = {
    "clip": {"clip": CLIP, "clip_vision_model": CLIP},
    "rad_dino": {"dinov2": DINOV2},
}
"""Kinds of network that an extractor may have, by the extractor's name and the configuration's `model_type`."""


class HubExtractor(NetworkExtractor):
    """An embedding of the whole picture: CLIP's projected one, or DINOv2's class token after the last norm."""

    def __init__(
        self, name: str, network: Any, processor: Any, *, features: str, dim: int, device: str | torch.device
    ) -> None:
        """Hold a network and its own image processor.

        Args:
            name: the extractor's.
            network: a vision transformer.
            processor: transformers' image processor of it; computes on the device where it is a torchvision one.
            features: field of the network's output.
            dim: number of features.
            device: where to compute.
        """
        digest = hash_state(network.state_dict())
        px = int(network.config.image_size)
        super().__init__(name, network, dim=dim, weights_hash=digest, input_px=px, device=device)
        self.processor, self._features = processor, features
        settings = json.loads(processor.to_json_string())
        steps = {step: settings.get(step) for step in STEPS}
        self.preprocessing = f"grey three times; {type(processor).__name__} {json.dumps(steps, sort_keys=True)}"

    def preprocess(self, batch: Tensor) -> Tensor:
        """uint8[n, H, W] or [n, H, W, 3] to float32[n, 3, h, w], by the settings that came with the weights."""
        inputs = self.processor(images=list(as_rgb(batch)), input_data_format="channels_first", return_tensors="pt")
        pixels: Tensor = inputs["pixel_values"]
        return pixels.to(self.device)

    def pooled(self, pixels: Tensor) -> Tensor:
        """float32[n, 3, h, w] to float32[n, dim]."""
        features: Tensor = getattr(self.network(pixel_values=pixels), self._features)
        return features


def load_hub(name: str, hub_id: str, weights: Path | None, device: str | torch.device) -> HubExtractor:
    """Load an extractor.

    Args:
        name: the extractor's, a key of the architectures above.
        hub_id: where its weights are published, as safetensors.
        weights: a folder of the same files; by default they come from the hub or its cache.
        device: where to compute.

    Raises:
        FileNotFoundError: the folder lacks a file, or the hub cannot be reached and its cache does not have them.
        ValueError: what is there is no such network, or a damaged one.

    Source:
        Radford et al. 2021 (CLIP); Pérez-García et al. 2024 (RAD-DINO).
    """
    folder = weights.expanduser() if weights else None
    if folder:
        _require_files(name, hub_id, folder)
    source = str(folder) if folder else hub_id
    try:
        config = PreTrainedConfig.get_config_dict(source)[0]
        architecture = _architecture(name, config, source)
        network, absent = _read(architecture, config, source)
        processor = AutoImageProcessor.from_pretrained(source, trust_remote_code=False)
    except OSError as error:
        raise _missing(name, hub_id, f"none at {source!r} ({str(error).splitlines()[0].rstrip('.')})") from error
    except (RuntimeError, SafetensorError) as error:
        raise ValueError(
            f"`weights` must fit the configuration beside them, but got {source!r}: {error}. Fetch {hub_id} again."
        ) from error
    if absent:
        raise ValueError(
            f"`weights` must hold every tensor of {type(network).__name__}, but got {source!r} without {len(absent)}, "
            f"first {absent[0]}. Fetch {hub_id} again."
        )
    width = int(getattr(network.config, architecture.width))
    return HubExtractor(name, network, processor, features=architecture.features, dim=width, device=device)


def _architecture(name: str, config: Mapping[str, Any], source: str) -> Architecture:
    """The kind of network that the configuration names, known before any weight is read into it."""
    kind, known = config.get("model_type"), ARCHITECTURES[name]
    if kind not in known:
        raise ValueError(
            f"`{name}` must have a configuration of model_type {' or '.join(known)}, but got {kind!r} in {source!r}. "
            "Give the folder that belongs to this extractor."
        )
    return known[kind]


def _read(architecture: Architecture, config: Mapping[str, Any], source: str) -> tuple[Any, list[str]]:
    """A network in float32, and the names of what its file lacks; that a whole CLIP has a text side is no news."""
    options = (
        {"projection_dim": config["projection_dim"]} if "projection_dim" in config else {}
    )  # CLIP's lies outside its parts
    verbosity = transformers_logging.get_verbosity()
    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()
    try:
        network, loading = architecture.network.from_pretrained(
            source, use_safetensors=True, dtype=torch.float32, output_loading_info=True, **options
        )
    finally:
        transformers_logging.set_verbosity(verbosity)
    return network, sorted(loading["missing_keys"])


def _require_files(name: str, hub_id: str, folder: Path) -> None:
    for file in (CONFIG, PREPROCESSOR):
        if not (folder / file).is_file():
            raise _missing(name, hub_id, f"no {file} in {str(folder)!r}")
    if not list(folder.glob("*.safetensors")):
        raise _missing(name, hub_id, f"no *.safetensors in {str(folder)!r}")


def _missing(name: str, hub_id: str, came: str) -> FileNotFoundError:
    return FileNotFoundError(
        f"`{name}` must have the network of {hub_id}, but got {came}. Connect to the network, or download "
        f"{CONFIG}, {PREPROCESSOR} and model.safetensors of https://huggingface.co/{hub_id} elsewhere and give their folder "
        "with --set evaluation.extractor_weights=FOLDER."
    )

"""The bundled chest classifier as feature extractor: small, offline, trained on generated radiographs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import torch
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from torchxrayvision.models import DenseNet

from analysis.features.base import DenseNetExtractor
from analysis.features.weights import hash_state, load_exactly, read_state

MINI_FOLDER = Path(__file__).parent / "mini"

Positive = Annotated[int, Field(gt=0)]


class MiniConfig(BaseModel):
    """Shape of a small DenseNet, as `config.json` beside its weights has it; other keys are the training script's.

    Attributes:
        growth_rate: feature maps that each layer adds.
        block_config: layers of each dense block.
        num_init_features: feature maps of the first convolution.
        bn_size: feature maps of a layer's bottleneck over its growth rate.
        conditions: what the classifier's outputs stand for, in their order.
        input_px: side that images are scaled to.
    """

    model_config = ConfigDict(frozen=True, extra="ignore")

    growth_rate: Positive
    block_config: tuple[Positive, ...] = Field(min_length=1)
    num_init_features: Positive
    bn_size: Positive
    conditions: tuple[str, ...] = Field(min_length=1)
    input_px: int = Field(ge=32)

    def build(self) -> DenseNet:
        """The network, with fresh weights."""
        return DenseNet(
            growth_rate=self.growth_rate,
            block_config=self.block_config,
            num_init_features=self.num_init_features,
            bn_size=self.bn_size,
            num_classes=len(self.conditions),
            in_channels=1,
            weights=None,
            apply_sigmoid=False,
        )


def load_mini(weights: Path | None, device: str | torch.device) -> DenseNetExtractor:
    """Load the extractor: pooled features of the small classifier.

    Args:
        weights: a folder with `config.json` and `weights.safetensors`; by default the bundled one.
        device: where to compute.

    Raises:
        FileNotFoundError: a file of the folder is missing.
        ValueError: configuration or weights are not valid.
    """
    folder = weights.expanduser() if weights else MINI_FOLDER
    config = _read_config(folder / "config.json")
    network, path = config.build(), folder / "weights.safetensors"
    state = read_state(path)
    load_exactly(network, state, path)
    return DenseNetExtractor("mini", network, weights_hash=hash_state(state), input_px=config.input_px, device=device)


def _read_config(path: Path) -> MiniConfig:
    if not path.is_file():
        raise FileNotFoundError(
            f"`mini` must have a config.json beside weights.safetensors, but got no {str(path)!r}. "
            "Train one with `python -m trainables.base_models.train_classifier`, or check the path."
        )
    try:
        return MiniConfig.model_validate(json.loads(path.read_text(encoding="utf-8")))
    except (json.JSONDecodeError, ValidationError) as error:
        raise ValueError(f"`config.json` must describe a DenseNet, but got {str(path)!r}: {error}") from error

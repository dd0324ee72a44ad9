"""Networks that turn radiographs into one logit a condition: three of torchvision's, and a small one for 64 px."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torchvision import models

from analysis.checks import expect, look_up
from analysis.features.weights import read_state
from analysis.films.labelled import standardise, standardise_like_imagenet

SMALL_WIDTH = 16


class Residual(nn.Module):
    """Two convolutions that halve the side, beside a pooled shortcut."""

    def __init__(self, num_in: int, num_out: int) -> None:
        """Take maps with `num_in` channels, give maps with `num_out`."""
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(num_in, num_out, 3, stride=2, padding=1, bias=False),
            nn.BatchNorm2d(num_out),
            nn.ReLU(inplace=True),
            nn.Conv2d(num_out, num_out, 3, padding=1, bias=False),
            nn.BatchNorm2d(num_out),
        )
        self.shortcut = nn.Sequential(
            nn.AvgPool2d(2), nn.Conv2d(num_in, num_out, 1, bias=False), nn.BatchNorm2d(num_out)
        )

    def forward(self, maps: Tensor) -> Tensor:
        """float[n, num_in, h, w] to float[n, num_out, h / 2, w / 2], h and w even."""
        return torch.relu(self.body(maps) + self.shortcut(maps))


class SmallNetwork(nn.Module):
    """A residual network for 64 px on a CPU; a maximum beside the mean lets a small patch count."""

    def __init__(self, num_conditions: int, width: int = SMALL_WIDTH) -> None:
        """Give one logit for each of `num_conditions`; `width` channels after the first layer."""
        super().__init__()
        self.features = nn.Sequential(
            nn.Conv2d(1, width, 5, stride=2, padding=2, bias=False),
            nn.BatchNorm2d(width),
            nn.ReLU(inplace=True),
            Residual(width, 2 * width),
            Residual(2 * width, 4 * width),
        )
        self.classifier = nn.Linear(8 * width, num_conditions)

    def forward(self, pixels: Tensor) -> Tensor:
        """Logits float[n, conditions] of float[n, 1, 64, 64]."""
        maps = self.features(pixels)
        logits: Tensor = self.classifier(torch.cat([maps.mean(dim=(2, 3)), maps.amax(dim=(2, 3))], dim=1))
        return logits


def _efficientnet_b0(num_conditions: int) -> nn.Module:
    network: nn.Module = models.efficientnet_b0(weights=None, num_classes=num_conditions)
    return network


def _densenet121(num_conditions: int) -> nn.Module:
    network: nn.Module = models.densenet121(weights=None, num_classes=num_conditions)
    return network


def _resnet50(num_conditions: int) -> nn.Module:
    network: nn.Module = models.resnet50(weights=None, num_classes=num_conditions)
    return network


@dataclass(frozen=True, kw_only=True)
class Architecture:
    """How to build a network, and what it takes.

    Attributes:
        build: number of conditions to network with fresh weights.
        input_px: side of its input.
        channels: of its input; a grey film is repeated.
        head: prefix of the last layer's tensors, which belong to the conditions and not to the features.
        standardise: levels [n, H, W] and channels to what the network takes, float32[n, channels, H, W].
    """

    build: Callable[[int], nn.Module]
    input_px: int
    channels: int
    head: str
    standardise: Callable[[Tensor, int], Tensor] = standardise


ARCHITECTURES = {
    "small": Architecture(build=SmallNetwork, input_px=64, channels=1, head="classifier."),
    "efficientnet_b0": Architecture(build=_efficientnet_b0, input_px=224, channels=3, head="classifier.1."),
    "densenet121": Architecture(build=_densenet121, input_px=224, channels=3, head="classifier."),
    "resnet50": Architecture(
        build=_resnet50, input_px=224, channels=3, head="fc.", standardise=standardise_like_imagenet
    ),
}


def build_classifier(architecture: str, num_conditions: int, *, initial_weights: Path | None = None) -> nn.Module:
    """A network with one logit a condition.

    Args:
        architecture: a key of `ARCHITECTURES`.
        num_conditions: at least 1.
        initial_weights: safetensors of the same architecture, such as torchvision's ImageNet weights; its last layer
            is not taken. Without it the weights are drawn from torch's generator.

    Raises:
        ValueError: the name is not known, there is no condition, or the file does not fit.
        FileNotFoundError: there is no such file.
    """
    chosen = look_up(ARCHITECTURES, architecture, "architecture")
    expect(num_conditions >= 1, "`num_conditions` must be at least 1", num_conditions, "Name the conditions.")
    network = chosen.build(num_conditions)
    if initial_weights is not None:
        _start_from(network, initial_weights, chosen.head)
    return network


def _start_from(network: nn.Module, path: Path, head: str) -> None:
    """Take all tensors but the last layer's from a file, and none less."""
    kept = {name: value for name, value in network.state_dict().items() if name.startswith(head)}
    given: dict[str, Any] = {name: value for name, value in read_state(path).items() if not name.startswith(head)}
    try:
        network.load_state_dict({**given, **kept})
    except RuntimeError as error:
        raise ValueError(
            f"`initial_weights` must be of {type(network).__name__}, but got {str(path)!r}: {error}. "
            "Give safetensors of the same architecture."
        ) from error

"""What turns images into features."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

BATCH_SIZE = 64


class FeatureExtractor(ABC):
    """Images to feature vectors.

    Attributes:
        name: table key, and the suffix of metric names ("fid_xrv").
        dim: number of features of an image.
        weights_hash: hex digest of the weights; what it extracts is cached under it.
        preprocessing: names what is done to an image before the network sees it; likewise part of the cache key.
    """

    name: ClassVar[str]
    dim: int
    weights_hash: str
    preprocessing: str

    @abstractmethod
    def extract(self, images: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Features of images.

        Args:
            images: uint8[n, H, W] grey or uint8[n, H, W, 3], square.

        Returns:
            float32[n, dim].
        """


class DenseNetExtractor(FeatureExtractor):
    """Pooled features of a torchxrayvision DenseNet: its last feature map through relu and a global average."""

    def __init__(self, network: nn.Module, *, weights_hash: str, input_px: int, device: str | torch.device) -> None:
        """Hold a network with `features` and `classifier` for evaluation on a device."""
        self.network: Any = network.eval().requires_grad_(False).to(device)
        self.dim = _num_features(self.network)
        self.weights_hash = weights_hash
        self.input_px = input_px
        self.device = torch.device(device)
        self.preprocessing = f"grey by mean; [-1024, 1024]; bilinear antialiased to {input_px} px"

    @torch.inference_mode()
    def extract(self, images: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Features float32[n, dim] of uint8[n, H, W] or [n, H, W, 3] images, in batches."""
        _check_images(images)
        features = np.empty((len(images), self.dim), dtype=np.float32)
        for start in range(0, len(images), BATCH_SIZE):
            batch = torch.from_numpy(np.array(images[start : start + BATCH_SIZE])).to(self.device)
            features[start : start + BATCH_SIZE] = self._pooled(self.preprocess(batch)).float().cpu().numpy()
        return features

    def preprocess(self, batch: Tensor) -> Tensor:
        """uint8[n, H, W] or [n, H, W, 3] to float32[n, 1, input_px, input_px] in [-1024, 1024], like torchxrayvision.

        Source:
            torchxrayvision.utils.normalize and fix_resolution.
        """
        scaled = (2 * (batch.float() / 255) - 1) * 1024
        grey = scaled.mean(dim=-1) if scaled.ndim == 4 else scaled
        grey = grey.unsqueeze(1)
        if grey.shape[-1] == self.input_px:
            return grey
        side = (self.input_px, self.input_px)
        return functional.interpolate(grey, size=side, mode="bilinear", antialias=True)

    def _pooled(self, pixels: Tensor) -> Tensor:
        pooled: Tensor = functional.relu(self.network.features(pixels)).mean(dim=(2, 3))
        return pooled


def _num_features(network: Any) -> int:
    """Number of channels that the classifier takes."""
    return int(network.classifier.in_features)


def _check_images(images: NDArray[np.uint8]) -> None:
    """Refuse what is not a stack of square 8-bit images."""
    grey_or_colour = images.ndim == 3 or (images.ndim == 4 and images.shape[-1] == 3)
    if images.dtype != np.uint8 or not grey_or_colour or images.shape[1] != images.shape[2]:
        raise ValueError(
            "`images` must be square and uint8[n, H, W] or uint8[n, H, W, 3], "
            f"but got {images.dtype}{list(images.shape)}. Crop to a square and scale to 0..255."
        )

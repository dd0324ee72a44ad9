"""What turns images into features."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

BATCH_SIZE = 64
LARGE_PX = 448
"""Images of this side or more go through a network by a quarter of the batch, so that 16 GiB hold them."""


class FeatureExtractor(ABC):
    """Images to feature vectors.

    Attributes:
        name: table key, and the suffix of metric names ("fid_xrv").
        dim: number of features of an image.
        weights_hash: hex digest of the weights; what it extracts is cached under it.
        preprocessing: names what is done to an image before the network sees it; likewise part of the cache key.
    """

    name: str
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


class NetworkExtractor(FeatureExtractor):
    """Features that a network makes of its own preprocessing's pixels, in batches."""

    def __init__(
        self, name: str, network: nn.Module, *, dim: int, weights_hash: str, input_px: int, device: str | torch.device
    ) -> None:
        """Hold a network for evaluation on a device.

        Args:
            name: the extractor's.
            network: gives its features where `pooled` asks for them.
            dim: number of features.
            weights_hash: hex digest of its weights.
            input_px: side of the images that it sees; large ones go through it by fewer.
            device: where to compute.
        """
        self.name = name
        self.network: Any = network.eval().requires_grad_(False).to(device)
        self.dim = dim
        self.weights_hash = weights_hash
        self.input_px = input_px
        self.device = torch.device(device)
        self.batch_size = BATCH_SIZE if input_px < LARGE_PX else BATCH_SIZE // 4

    @torch.inference_mode()
    def extract(self, images: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Features float32[n, dim] of uint8[n, H, W] or [n, H, W, 3] images, in batches."""
        _check_images(images)
        features = np.empty((len(images), self.dim), dtype=np.float32)
        for start in range(0, len(images), self.batch_size):
            place = slice(start, start + self.batch_size)
            batch = torch.from_numpy(np.array(images[place])).to(self.device)
            features[place] = self.pooled(self.preprocess(batch)).float().cpu().numpy()
        return features

    @abstractmethod
    def preprocess(self, batch: Tensor) -> Tensor:
        """uint8[n, H, W] or [n, H, W, 3] to what the network takes."""

    @abstractmethod
    def pooled(self, pixels: Tensor) -> Tensor:
        """Preprocessed pixels to features float[n, dim]."""


class RadiographExtractor(NetworkExtractor):
    """A network that sees what torchxrayvision's see: one channel in [-1024, 1024]."""

    def __init__(
        self, name: str, network: nn.Module, *, dim: int, weights_hash: str, input_px: int, device: str | torch.device
    ) -> None:
        """Hold a network for evaluation on a device; arguments as above."""
        super().__init__(name, network, dim=dim, weights_hash=weights_hash, input_px=input_px, device=device)
        self.preprocessing = f"grey by mean; [-1024, 1024]; bilinear antialiased to {input_px} px"

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


class DenseNetExtractor(RadiographExtractor):
    """Pooled features of a torchxrayvision DenseNet: its last feature map through relu and a global average."""

    def __init__(
        self, name: str, network: Any, *, weights_hash: str, input_px: int, device: str | torch.device
    ) -> None:
        """Hold a network with `features` and `classifier` for evaluation on a device."""
        dim = int(network.classifier.in_features)
        super().__init__(name, network, dim=dim, weights_hash=weights_hash, input_px=input_px, device=device)

    def pooled(self, pixels: Tensor) -> Tensor:
        """float32[n, 1, H, W] to float32[n, dim]."""
        features: Tensor = functional.relu(self.network.features(pixels)).mean(dim=(2, 3))
        return features


def as_rgb(batch: Tensor) -> Tensor:
    """uint8[n, H, W] or [n, H, W, 3] to uint8[n, 3, H, W]; grey three times."""
    return batch.permute(0, 3, 1, 2) if batch.ndim == 4 else batch.unsqueeze(1).expand(-1, 3, -1, -1)


def _check_images(images: NDArray[np.uint8]) -> None:
    """Refuse what is not a stack of square 8-bit images."""
    grey_or_colour = images.ndim == 3 or (images.ndim == 4 and images.shape[-1] == 3)
    if images.dtype != np.uint8 or not grey_or_colour or images.shape[1] != images.shape[2]:
        raise ValueError(
            "`images` must be square and uint8[n, H, W] or uint8[n, H, W, 3], "
            f"but got {images.dtype}{list(images.shape)}. Crop to a square and scale to 0..255."
        )

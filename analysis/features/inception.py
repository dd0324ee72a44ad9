"""The network of the standard FID: TensorFlow's Inception-v3 of December 2015, 2048 features of its last pooling."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from torchvision.models import inception as blocks

from analysis.features.base import NetworkExtractor, as_rgb
from analysis.features.published import published_weights
from analysis.features.weights import hash_state, load_exactly, read_state, without_counters

WEIGHTS_URL = (
    "https://github.com/toshas/torch-fidelity/releases/download/v0.2.0/weights-inception-2015-12-05-6726825d.pth"
)
INPUT_PX = 299
NUM_CLASSES = 1008


def _average(x: Tensor) -> Tensor:
    """TensorFlow's average leaves the border's zeros out of the count."""
    return functional.avg_pool2d(x, kernel_size=3, stride=1, padding=1, count_include_pad=False)


def _with_pooling(block: type[Any], pool: Any) -> type[Any]:
    """torchvision's block with another pooling in its last branch."""

    class Patched(block):  # type: ignore[misc]
        def _forward(self, x: Tensor) -> list[Tensor]:
            *others, _ = super()._forward(x)
            return [*others, self.branch_pool(pool(x))]

    return Patched


def _largest(x: Tensor) -> Tensor:
    largest: Tensor = functional.max_pool2d(x, kernel_size=3, stride=1, padding=1)
    return largest


def fid_inception() -> nn.Module:
    """torchvision's Inception-v3 as TensorFlow's was: other poolings, 1008 classes, fresh weights."""
    network: Any = blocks.Inception3(
        num_classes=NUM_CLASSES,
        aux_logits=False,
        transform_input=False,
        init_weights=False,
        inception_blocks=[
            blocks.BasicConv2d,
            _with_pooling(blocks.InceptionA, _average),
            blocks.InceptionB,
            _with_pooling(blocks.InceptionC, _average),
            blocks.InceptionD,
            _with_pooling(blocks.InceptionE, _average),
            blocks.InceptionAux,
        ],
    )
    network.Mixed_7c = _with_pooling(blocks.InceptionE, _largest)(2048)
    return network  # type: ignore[no-any-return]


def resize_like_tensorflow1(pixels: Tensor, side_px: int) -> Tensor:
    """Bilinear by TensorFlow 1's rule `align_corners=False`: pixel i of the result lies at i * H / side_px, no antialias.

    Args:
        pixels: float[n, c, H, W].
        side_px: height and width of the result.

    Returns:
        float[n, c, side_px, side_px].
    """
    for dim in (-1, -2):
        size = pixels.shape[dim]
        place = torch.arange(side_px, dtype=torch.float32, device=pixels.device) * (size / side_px)
        low = place.long()
        share = (place - low).view(-1, *[1] * (-dim - 1))
        near, far = pixels.index_select(dim, low), pixels.index_select(dim, (low + 1).clamp(max=size - 1))
        pixels = near + (far - near) * share
    return pixels


class InceptionExtractor(NetworkExtractor):
    """2048 features of an image at 299 px; the network ends before its classifier."""

    preprocessing = (
        f"grey three times; bilinear like TensorFlow 1, align_corners=False, to {INPUT_PX} px; (x - 128) / 128"
    )

    def preprocess(self, batch: Tensor) -> Tensor:
        """uint8[n, H, W] or [n, H, W, 3] to float32[n, 3, 299, 299] in [-1, 1)."""
        return (resize_like_tensorflow1(as_rgb(batch).float(), INPUT_PX) - 128) / 128

    def pooled(self, pixels: Tensor) -> Tensor:
        """float32[n, 3, 299, 299] to float32[n, 2048]."""
        features: Tensor = self.network(pixels)
        return features


def load_inception(name: str, weights: Path | None, device: str | torch.device) -> InceptionExtractor:
    """Load the extractor.

    Args:
        name: the extractor's.
        weights: a .safetensors or the .pth that torch-fidelity and pytorch-fid publish; by default torch's hub folder is
            used and the file fetched into it where need be.
        device: where to compute.

    Raises:
        FileNotFoundError: the file is neither there nor to be had.
        ValueError: the file does not hold these weights.

    Source:
        Heusel et al. 2017, the network of the Fréchet Inception distance; weights converted by pytorch-fid.
    """
    folder = Path(torch.hub.get_dir()) / "checkpoints"
    path = weights.expanduser() if weights else published_weights(name, WEIGHTS_URL, folder)
    network: Any = fid_inception()
    state = without_counters(read_state(path))
    load_exactly(network, state, path)
    dim, network.fc = network.fc.in_features, nn.Identity()
    return InceptionExtractor(name, network, dim=dim, weights_hash=hash_state(state), input_px=INPUT_PX, device=device)

"""torchxrayvision's classifiers, trained on chest radiographs of one hospital or of seven data sets."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
import torchvision
from torch import Tensor, nn
from torchxrayvision.models import DenseNet, model_urls
from torchxrayvision.utils import get_cache_dir

from analysis.features.base import DenseNetExtractor, RadiographExtractor
from analysis.features.published import published_weights
from analysis.features.weights import hash_state, load_exactly, read_state, without_counters

NUM_FINDINGS = 18


class ResNetExtractor(RadiographExtractor):
    """Pooled features of a torchxrayvision ResNet, equal to its own `features`; the network ends before its classifier."""

    def pooled(self, pixels: Tensor) -> Tensor:
        """float32[n, 1, H, W] to float32[n, dim]."""
        features: Tensor = self.network(pixels)
        return features


def load_xrv(name: str, model: str, weights: Path | None, device: str | torch.device) -> RadiographExtractor:
    """Load an extractor: 1024 features at 224 px of a DenseNet-121, or 2048 at 512 px of the ResNet-50.

    Args:
        name: the extractor's.
        model: torchxrayvision's name of the weights, such as `densenet121-res224-all`.
        weights: a .safetensors or torchxrayvision's .pt; by default torchxrayvision's own folder is used and the file
            fetched into it where need be.
        device: where to compute.

    Raises:
        FileNotFoundError: the file is neither there nor to be had.
        ValueError: the file does not hold such weights.

    Source:
        Cohen et al. 2022, TorchXRayVision.
    """
    published = model_urls[model]
    path = weights.expanduser() if weights else published_weights(name, published["weights_url"], Path(get_cache_dir()))
    state, px = without_counters(read_state(path)), int(published["input_resolution"])
    network = _resnet50(state) if model.startswith("resnet50") else _densenet121(state)
    load_exactly(network, state, path)
    digest = hash_state(state)
    if not isinstance(network, torchvision.models.ResNet):
        return DenseNetExtractor(name, network, weights_hash=digest, input_px=px, device=device)
    dim, network.fc = network.fc.in_features, nn.Identity()
    return ResNetExtractor(name, network, dim=dim, weights_hash=digest, input_px=px, device=device)


def _densenet121(state: Mapping[str, Tensor]) -> nn.Module:
    network: nn.Module = DenseNet(num_classes=_num_findings(state, "classifier.bias"), weights=None)
    return network


def _resnet50(state: Mapping[str, Tensor]) -> nn.Module:
    """torchvision's network for one channel."""
    network: nn.Module = torchvision.models.resnet50(weights=None, num_classes=_num_findings(state, "fc.bias"))
    network.conv1 = nn.Conv2d(1, 64, kernel_size=7, stride=2, padding=3, bias=False)
    return network


def _num_findings(state: Mapping[str, Tensor], bias: str) -> int:
    return len(state[bias]) if bias in state else NUM_FINDINGS

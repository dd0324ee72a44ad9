"""torchxrayvision's DenseNet-121, trained on seven chest radiograph data sets."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor
from torchxrayvision.models import DenseNet, model_urls
from torchxrayvision.utils import download, get_cache_dir

from analysis.features.base import DenseNetExtractor
from analysis.features.weights import hash_state, load_exactly, read_state, write_state

MODEL = "densenet121-res224-all"
WEIGHTS_URL: str = model_urls[MODEL]["weights_url"]
INPUT_PX: int = model_urls[MODEL]["input_resolution"]


class XrvExtractor(DenseNetExtractor):
    """1024 features of a radiograph at 224 px, equal to `features2` of torchxrayvision's own model.

    Source:
        Cohen et al. 2022, TorchXRayVision; weights `densenet121-res224-all`.
    """

    name = "xrv"


def load_xrv(weights: Path | None, device: str | torch.device) -> XrvExtractor:
    """Load the extractor.

    Args:
        weights: a .safetensors or torchxrayvision's .pt; by default torchxrayvision's own folder is used and the file
            fetched into it where need be.
        device: where to compute.

    Raises:
        FileNotFoundError: the file is neither there nor to be had.
        ValueError: the file does not hold these weights.
    """
    path = weights.expanduser() if weights else _published_weights(Path(get_cache_dir()))
    state = _network_state(read_state(path))
    classes = state.get("classifier.bias")
    network = DenseNet(num_classes=len(classes) if classes is not None else 18, weights=None)
    load_exactly(network, state, path)
    return XrvExtractor(network, weights_hash=hash_state(state), input_px=INPUT_PX, device=device)


def _network_state(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Without thresholds and counters, which no feature depends on and not every file has."""
    return {name: t for name, t in state.items() if name != "op_threshs" and not name.endswith("num_batches_tracked")}


def _published_weights(folder: Path) -> Path:
    """The weights converted to safetensors once, from torchxrayvision's file, which is fetched where it is missing."""
    original = folder / Path(WEIGHTS_URL).name
    converted = original.with_suffix(".safetensors")
    if converted.exists():
        return converted
    if not original.exists():
        _fetch(original)
    write_state(read_state(original), converted)
    return converted


def _fetch(path: Path) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        download(WEIGHTS_URL, str(path))
    except OSError as error:  # requests' errors are of this kind
        raise FileNotFoundError(
            f"`xrv` must have the weights of {MODEL}, but got none at {str(path)!r} "
            f"and could not fetch them: {error}. "
            f"Put {WEIGHTS_URL} there, give a copy's path as `extractor_weights`, or use the bundled extractor mini."
        ) from error

"""The network of the standard FID: equal to torch-fidelity's, with the same weights, resize included."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3
from torch_fidelity.interpolate_compat_tensorflow import interpolate_bilinear_2d_like_tensorflow1x

from analysis.features import inception, load_extractor
from analysis.features.inception import fid_inception, resize_like_tensorflow1


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Random weights in the published file's format, of a size that keeps values alive through all layers."""
    torch.manual_seed(0)
    network = fid_inception()
    for module in network.modules():
        if isinstance(module, torch.nn.Conv2d):
            torch.nn.init.kaiming_normal_(module.weight)
        elif isinstance(module, torch.nn.BatchNorm2d):
            module.running_mean.normal_(std=0.1)
            module.running_var.uniform_(0.5, 2)
    path = tmp_path_factory.mktemp("inception") / "weights-inception-2015-12-05-6726825d.pth"
    torch.save(network.state_dict(), path)
    return path


def _images(num_images: int, side_px: int, *channels: int) -> NDArray[np.uint8]:
    return np.random.default_rng(0).integers(0, 256, (num_images, side_px, side_px, *channels), dtype=np.uint8)


@pytest.mark.slow
@pytest.mark.parametrize("shape", [(2, 64), (2, 320, 3)])
def test_it_equals_torch_fidelitys_network(weights: Path, shape: tuple[int, ...]) -> None:
    images = _images(*shape)
    extractor = load_extractor("inception", weights=weights)
    features = extractor.extract(images)
    theirs = FeatureExtractorInceptionV3("inception", ["2048"], feature_extractor_weights_path=str(weights))
    colour = images if images.ndim == 4 else np.repeat(images[..., None], 3, axis=-1)
    with torch.no_grad():
        expected = theirs(torch.from_numpy(colour).permute(0, 3, 1, 2))[0].numpy()
    assert (extractor.name, extractor.dim, features.shape) == ("inception", 2048, (2, 2048))
    assert expected.std() > 0.01 and (expected.std(axis=0) > 0).any()
    np.testing.assert_allclose(features, expected, rtol=1e-4, atol=1e-4 * expected.std())


@pytest.mark.parametrize("side_px", [1, 32, 299, 512])
def test_the_resize_is_tensorflows(side_px: int) -> None:
    pixels = torch.from_numpy(_images(2, side_px, 3)).permute(0, 3, 1, 2).float()
    ours = resize_like_tensorflow1(pixels, 299)
    theirs = interpolate_bilinear_2d_like_tensorflow1x(pixels, size=(299, 299), align_corners=False)
    torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-3)


def test_pixel_i_lies_at_i_times_the_ratio() -> None:
    """Closed form: 0, 1, 2, 3 at the places 0, 4/6, 8/6, 12/6, 16/6 and, held at the border, 20/6."""
    row = torch.arange(4.0).expand(1, 1, 4, 4)
    expected = torch.tensor([0, 4 / 6, 8 / 6, 2, 16 / 6, 3])
    torch.testing.assert_close(resize_like_tensorflow1(row, 6)[0, 0, 0], expected)


@pytest.mark.slow
def test_the_published_file_is_found_where_torch_keeps_it(
    weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.hub, "_hub_dir", str(tmp_path))
    monkeypatch.setattr(inception, "WEIGHTS_URL", "http://127.0.0.1:9/inception.pth")
    with pytest.raises(
        FileNotFoundError, match=r"none at .*checkpoints/inception.pth.*Put http.*extractor_weights=FILE"
    ):
        load_extractor("inception")
    (tmp_path / "checkpoints" / "inception.pth").write_bytes(weights.read_bytes())
    assert load_extractor("inception").weights_hash == load_extractor("inception", weights=weights).weights_hash


@pytest.mark.slow
def test_torchvisions_own_weights_are_refused(tmp_path: Path, weights: Path) -> None:
    state = torch.load(weights)
    state["fc.weight"], state["fc.bias"] = state["fc.weight"][:1000], state["fc.bias"][:1000]
    torch.save(state, tmp_path / "imagenet.pth")
    with pytest.raises(ValueError, match="`weights` must fit Inception3 as configured"):
        load_extractor("inception", weights=tmp_path / "imagenet.pth")

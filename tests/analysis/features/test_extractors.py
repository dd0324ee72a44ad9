"""Extractors: equal to torchxrayvision's own model, strict about files, clear when the weights are not there."""

from __future__ import annotations

import contextlib
import io
import json
import os
import pickle
import re
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torchvision
import torchxrayvision as txrv
from numpy.typing import NDArray
from safetensors.torch import save_file

from analysis.features import EXTRACTORS, load_extractor, split_metric
from analysis.features.weights import read_state
from analysis.metrics import frechet_distance
from analysis.report.words import label

INPUT_PX = 224
XRV_FILE = Path(txrv.models.model_urls["densenet121-res224-all"]["weights_url"]).name
CONFIG = {
    "growth_rate": 4,
    "block_config": [2, 2],
    "num_init_features": 8,
    "bn_size": 2,
    "input_px": 64,
    "conditions": ["Edema", "No Finding"],
    "num_classes": 2,
    "auc": {"Edema": 0.9},
}
MINI_DIM = (8 + 2 * 4) // 2 + 2 * 4


def _densenet(**shape: Any) -> txrv.models.DenseNet:
    torch.manual_seed(0)
    return _with_statistics(txrv.models.DenseNet(weights=None, **shape))


def _with_statistics(network: Any) -> Any:
    """Batch statistics that are not those of a fresh network."""
    for module in network.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.running_mean.normal_()
            module.running_var.uniform_(0.5, 2)
    return network.eval()


@pytest.fixture(scope="module")
def densenet121() -> txrv.models.DenseNet:
    return _densenet(num_classes=18)


@pytest.fixture
def mini_folder(tmp_path: Path) -> Path:
    shape = {name: CONFIG[name] for name in ("growth_rate", "num_init_features", "bn_size", "num_classes")}
    network = _densenet(block_config=(2, 2), **shape)
    save_file(network.state_dict(), tmp_path / "weights.safetensors")
    (tmp_path / "config.json").write_text(json.dumps(CONFIG))
    return tmp_path


def _images(num_images: int, side_px: int, *channels: int) -> NDArray[np.uint8]:
    return np.random.default_rng(0).integers(0, 256, (num_images, side_px, side_px, *channels), dtype=np.uint8)


def _their_features(network: Any, images: NDArray[np.uint8]) -> NDArray[np.float32]:
    """The way of torchxrayvision's documentation: normalize, mean over colours, and the model resizes."""
    scaled = txrv.datasets.normalize(images, 255)
    grey = scaled.mean(-1) if scaled.ndim == 4 else scaled
    network.input_resolution = INPUT_PX
    with torch.no_grad(), contextlib.redirect_stdout(io.StringIO()):
        features: NDArray[np.float32] = network.features2(torch.from_numpy(grey)[:, None]).numpy()
    return features


@pytest.mark.slow
@pytest.mark.parametrize("shape", [(3, 224), (2, 64), (2, 300), (2, 224, 3)])
def test_xrv_equals_torchxrayvisions_own_features(densenet121: Any, tmp_path: Path, shape: tuple[int, ...]) -> None:
    save_file(densenet121.state_dict(), tmp_path / "xrv.safetensors")
    images = _images(*shape)
    extractor = load_extractor("xrv", weights=tmp_path / "xrv.safetensors")
    features = extractor.extract(images)
    assert (features.shape, features.dtype, extractor.dim) == ((shape[0], 1024), np.float32, 1024)
    np.testing.assert_allclose(features, _their_features(densenet121, images), rtol=1e-4, atol=1e-4)


@pytest.mark.slow
def test_the_resnet_equals_torchxrayvisions_own_features(tmp_path: Path) -> None:
    torch.manual_seed(0)
    network = torchvision.models.resnet50(weights=None, num_classes=18)
    network.conv1 = torch.nn.Conv2d(1, 64, kernel_size=7, stride=2, padding=3, bias=False)
    path = tmp_path / Path(txrv.models.model_urls["resnet50-res512-all"]["weights_url"]).name
    torch.save(_with_statistics(network).state_dict(), path)
    images = _images(2, 64, 3)
    extractor = load_extractor("xrv-resnet50", weights=path)
    features = extractor.extract(images)
    theirs = txrv.models.ResNet(weights="resnet50-res512-all", cache_dir=str(tmp_path))
    grey = torch.from_numpy(txrv.datasets.normalize(images, 255).mean(-1))[:, None]
    with torch.no_grad(), contextlib.redirect_stdout(io.StringIO()):
        expected = theirs.features(grey).numpy()
    assert (extractor.name, extractor.dim, features.shape) == ("xrv-resnet50", 2048, (2, 2048))
    np.testing.assert_allclose(features, expected, rtol=1e-4, atol=1e-4 * expected.std())
    with pytest.raises(ValueError, match="`weights` must fit DenseNet as configured"):
        load_extractor("xrv-rsna", weights=path)


def test_mini_is_its_classifiers_pooled_features(mini_folder: Path) -> None:
    extractor = load_extractor("mini", weights=mini_folder)
    network = _densenet(block_config=(2, 2), growth_rate=4, num_init_features=8, bn_size=2, num_classes=2)
    images = _images(5, 64)
    pixels = torch.from_numpy(txrv.datasets.normalize(images, 255))[:, None]
    with torch.no_grad():
        theirs = network.features2(pixels).numpy()
        np.testing.assert_allclose(network.classifier(torch.from_numpy(theirs)), network(pixels))
    assert extractor.dim == MINI_DIM
    np.testing.assert_allclose(extractor.extract(images), theirs, rtol=1e-4, atol=1e-4)


def test_batches_grey_and_colour_agree(mini_folder: Path) -> None:
    extractor = load_extractor("mini", weights=mini_folder)
    images = _images(70, 64)
    together = extractor.extract(images)
    one_by_one = np.concatenate([extractor.extract(images[i : i + 1]) for i in (0, 64, 69)])
    colour = np.repeat(images[..., None], 3, axis=-1)
    np.testing.assert_allclose(together[[0, 64, 69]], one_by_one, rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(extractor.extract(colour), together, rtol=1e-4, atol=1e-4)
    assert extractor.extract(images[:0]).shape == (0, MINI_DIM)


@pytest.mark.slow
@pytest.mark.parametrize("zipped", [True, False])
def test_a_pickled_module_is_read_like_safetensors(densenet121: Any, tmp_path: Path, zipped: bool) -> None:
    """torchxrayvision publishes whole modules, saved by a torch that did not zip and knew fewer attributes."""
    for module in densenet121.modules():
        module.__dict__.pop("_non_persistent_buffers_set", None)
    torch.save(densenet121, tmp_path / "xrv.pt", _use_new_zipfile_serialization=zipped)
    for module in densenet121.modules():
        module.__dict__["_non_persistent_buffers_set"] = set()
    save_file(densenet121.state_dict(), tmp_path / "xrv.safetensors")
    from_pickle = load_extractor("xrv", weights=tmp_path / "xrv.pt")
    from_tensors = load_extractor("xrv", weights=tmp_path / "xrv.safetensors")
    assert from_pickle.weights_hash == from_tensors.weights_hash
    images = _images(1, 64)
    assert np.array_equal(from_pickle.extract(images), from_tensors.extract(images))


class _Intruder:
    """Runs a command when an ordinary unpickler reads it."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[Any, tuple[str]]:
        return os.mkdir, (str(self.mark),)


@pytest.mark.parametrize("zipped", [True, False])
def test_a_pickle_may_not_run_code(tmp_path: Path, zipped: bool) -> None:
    torch.save({"w": _Intruder(tmp_path / "broken_in")}, tmp_path / "evil.pt", _use_new_zipfile_serialization=zipped)
    with pytest.raises(ValueError, match=r"mkdir is neither part of a DenseNet nor of a state dict"):
        load_extractor("xrv", weights=tmp_path / "evil.pt")
    assert not (tmp_path / "broken_in").exists()
    torch.load(tmp_path / "evil.pt", weights_only=False)
    assert (tmp_path / "broken_in").exists()


class _Scripted(torch.nn.Module):
    """Writes a file when TorchScript restores it."""

    def __init__(self, mark: str) -> None:
        super().__init__()
        self.mark = mark

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x

    @torch.jit.export
    def __getstate__(self) -> tuple[str, bool]:
        return self.mark, self.training

    @torch.jit.export
    def __setstate__(self, state: tuple[str, bool]) -> None:
        self.mark, self.training = state
        torch.save(torch.zeros(1), self.mark)


def test_a_script_may_not_run_code(tmp_path: Path) -> None:
    torch.jit.script(_Scripted(str(tmp_path / "broken_in"))).save(tmp_path / "evil.pt")
    with pytest.raises(ValueError, match="TorchScript is a program"):
        load_extractor("xrv", weights=tmp_path / "evil.pt")
    assert not (tmp_path / "broken_in").exists()
    torch.jit.load(tmp_path / "evil.pt")
    assert (tmp_path / "broken_in").exists()


@pytest.mark.slow
def test_published_weights_are_converted_once(
    densenet121: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    folder = tmp_path / ".torchxrayvision" / "models_data"
    folder.mkdir(parents=True)
    original = folder / XRV_FILE
    torch.save(densenet121, original, _use_new_zipfile_serialization=False)
    first = load_extractor("xrv")
    original.unlink()
    assert load_extractor("xrv").weights_hash == first.weights_hash
    assert [path.suffix for path in folder.iterdir()] == [".safetensors"]


def _publish_nowhere(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Every file of torchxrayvision under an address that nobody answers; the names of the networks that have features."""
    models = [model for model in txrv.models.model_urls if model.startswith(("densenet", "resnet"))]
    for model in models:
        published = {**txrv.models.model_urls[model], "weights_url": f"http://127.0.0.1:9/{model}.pt"}
        monkeypatch.setitem(txrv.models.model_urls, model, published)
    return models


def test_every_network_of_torchxrayvision_has_one_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    models, asked_for = _publish_nowhere(monkeypatch), []
    for name in EXTRACTORS:
        if name.startswith("xrv"):
            with pytest.raises(FileNotFoundError, match=rf"`{name}` must have its published weights") as raised:
                load_extractor(name)
            asked_for += re.findall(r"Put http://127.0.0.1:9/(\S+).pt there", str(raised.value))
    assert sorted(asked_for) == sorted(models) and len(models) == 8


def test_missing_weights_say_where_to_put_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    _publish_nowhere(monkeypatch)
    with pytest.raises(
        FileNotFoundError, match=r"none at .*models_data/densenet121-res224-all.pt.*Put http.*extractor_weights"
    ):
        load_extractor("xrv")
    assert not list((tmp_path / ".torchxrayvision" / "models_data").iterdir())
    with pytest.raises(FileNotFoundError, match="`weights` must be a file, but got"):
        load_extractor("xrv", weights=tmp_path / "nothing.safetensors")


def test_weights_of_another_network_are_refused(mini_folder: Path) -> None:
    with pytest.raises(ValueError, match="`weights` must fit DenseNet as configured"):
        load_extractor("xrv", weights=mini_folder / "weights.safetensors")
    (mini_folder / "config.json").write_text(json.dumps({**CONFIG, "growth_rate": 5}))
    with pytest.raises(ValueError, match="`weights` must fit DenseNet as configured"):
        load_extractor("mini", weights=mini_folder)


@pytest.mark.parametrize("content", [b"", b"no weights", struct.pack("<Q", 10**9), pickle.dumps([1, 2])])
@pytest.mark.parametrize("suffix", [".pt", ".safetensors"])
def test_damaged_files_are_refused(tmp_path: Path, suffix: str, content: bytes) -> None:
    path = tmp_path / f"damaged{suffix}"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"`weights` must be safetensors or its publisher's own .pt"):
        read_state(path)


def test_the_bundled_extractor_tells_films_from_noise() -> None:
    """Two sets of smooth pictures are closer to each other than to noise of the same grey levels."""
    extractor = load_extractor("mini")
    ramps = np.linspace(0, 255, 64)[:, None] * np.linspace(0.3, 1, 40)[:, None, None] * np.ones((40, 64, 64))
    smooth = extractor.extract(ramps.astype(np.uint8))
    noise = extractor.extract(np.random.default_rng(0).permuted(ramps, axis=1).astype(np.uint8))
    assert np.isfinite(smooth).all()
    assert frechet_distance(smooth[::2], smooth[1::2]) < 0.1 * frechet_distance(noise[::2], smooth[1::2])


def test_mini_configuration_is_checked(mini_folder: Path) -> None:
    (mini_folder / "config.json").write_text(json.dumps({**CONFIG, "block_config": []}))
    with pytest.raises(ValueError, match=r"`config.json` must describe a DenseNet.*[\s\S]*block_config"):
        load_extractor("mini", weights=mini_folder)
    (mini_folder / "config.json").unlink()
    with pytest.raises(FileNotFoundError, match=r"`mini` must have a config.json"):
        load_extractor("mini", weights=mini_folder)


@pytest.mark.parametrize("images", [_images(2, 64).astype(np.float32), _images(2, 64)[:, :32], _images(2, 64, 2)])
def test_images_are_checked(mini_folder: Path, images: NDArray[Any]) -> None:
    with pytest.raises(ValueError, match="`images` must be square and uint8"):
        load_extractor("mini", weights=mini_folder).extract(images)


@pytest.mark.parametrize(
    ("name", "near"), [("xvr", "xrv"), ("xrv-rnsa", "xrv-rsna"), ("rad-dino", "rad_dino"), ("incepton", "inception")]
)
def test_an_unknown_extractor_is_answered_with_the_nearest(name: str, near: str) -> None:
    with pytest.raises(
        ValueError, match=rf"`extractor` must be a known name, but got '{name}'. Did you mean '{near}'.*Valid: clip, "
    ):
        load_extractor(name)


@pytest.mark.parametrize("extractor", EXTRACTORS)
def test_columns_are_split_into_metric_and_extractor(extractor: str) -> None:
    assert split_metric(f"early_kid_{extractor}") == ("early_kid", extractor)
    assert split_metric(f"fid_{extractor}/Edema") == (f"fid_{extractor}/Edema", "")
    assert label(f"fid_{extractor}") == f"FID ({extractor})"

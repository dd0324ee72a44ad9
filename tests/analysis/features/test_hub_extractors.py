"""Vision transformers from folders of the hub's layout: equal to transformers' own pipelines, strict about files."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image
from transformers import (
    AutoModel,
    BitImageProcessor,
    CLIPConfig,
    CLIPImageProcessor,
    CLIPModel,
    Dinov2Config,
    Dinov2Model,
)
from transformers.models.bit.image_processing_pil_bit import BitImageProcessorPil
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

from analysis.features import load_extractor
from analysis.features.base import BATCH_SIZE

SMALL = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2}
PIL = {"clip": CLIPImageProcessorPil, "rad_dino": BitImageProcessorPil}
DIMS = {"clip": 12, "rad_dino": 16}


def _write_clip(folder: Path) -> None:
    text = {**SMALL, "intermediate_size": 32, "vocab_size": 99, "max_position_embeddings": 8}
    vision = {**SMALL, "intermediate_size": 32, "image_size": 32, "patch_size": 8}
    CLIPModel(CLIPConfig(text_config=text, vision_config=vision, projection_dim=DIMS["clip"])).save_pretrained(folder)
    CLIPImageProcessor(size={"shortest_edge": 32}, crop_size=32).save_pretrained(folder)


def _write_rad_dino(folder: Path, image_px: int = 42, patch_px: int = 14) -> None:
    config = Dinov2Config(**SMALL, mlp_ratio=2, image_size=image_px, patch_size=patch_px)
    Dinov2Model(config).save_pretrained(folder)
    BitImageProcessor(
        size={"shortest_edge": image_px}, crop_size=image_px, image_mean=[0.5307] * 3, image_std=[0.2583] * 3
    ).save_pretrained(folder)


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    torch.manual_seed(0)
    made = {name: tmp_path_factory.mktemp(name) for name in DIMS}
    _write_clip(made["clip"])
    _write_rad_dino(made["rad_dino"])
    return made


def _images(num_images: int, side_px: int, *channels: int) -> NDArray[np.uint8]:
    """Smooth pictures: what resizes to nearly the same by any good implementation."""
    rng, axis = np.random.default_rng(0), np.linspace(0, 3, side_px)
    waves = rng.uniform(0.5, 2, (num_images, 1, 1, *channels)) * axis[:, None].reshape(side_px, 1, *[1] * len(channels))
    tilt = rng.uniform(0.5, 2, (num_images, 1, 1, *channels)) * axis.reshape(1, side_px, *[1] * len(channels))
    return (127.5 + 127 * np.sin(waves + tilt)).astype(np.uint8)


def _their_features(name: str, folder: Path, images: NDArray[np.uint8]) -> NDArray[np.float32]:
    """The way of transformers' documentation: PIL pictures, the processor on PIL, the whole model."""
    pixels = PIL[name].from_pretrained(folder)(
        images=[Image.fromarray(image).convert("RGB") for image in images], return_tensors="pt"
    )
    model = AutoModel.from_pretrained(folder).eval()
    with torch.no_grad():
        output = model.get_image_features(**pixels) if name == "clip" else model(**pixels)
    features: NDArray[np.float32] = (output if isinstance(output, torch.Tensor) else output.pooler_output).numpy()
    return features


@pytest.mark.slow
@pytest.mark.parametrize("name", DIMS)
@pytest.mark.parametrize("shape", [(3, 64), (2, 64, 3), (2, 20)])
def test_it_equals_transformers_own_pipeline(folders: dict[str, Path], name: str, shape: tuple[int, ...]) -> None:
    """Resized by torch where they resize by Pillow: a grey level of difference here and there."""
    images = _images(*shape)
    extractor = load_extractor(name, weights=folders[name])
    features, expected = extractor.extract(images), _their_features(name, folders[name], images)
    assert (extractor.name, extractor.dim, features.dtype) == (name, DIMS[name], np.float32)
    np.testing.assert_allclose(features, expected, atol=0.02 * expected.std())
    assert np.abs(expected[0] - expected[1]).max() > 0.1 * expected.std()


@pytest.mark.parametrize(("name", "side_px"), [("clip", 32), ("rad_dino", 42)])
def test_without_a_resize_it_is_equal_to_rounding(folders: dict[str, Path], name: str, side_px: int) -> None:
    images = np.random.default_rng(0).integers(0, 256, (3, side_px, side_px), dtype=np.uint8)
    features = load_extractor(name, weights=folders[name]).extract(images)
    expected = _their_features(name, folders[name], images)
    np.testing.assert_allclose(features, expected, rtol=1e-4, atol=1e-4 * expected.std())


@pytest.mark.parametrize("name", DIMS)
def test_batches_grey_and_colour_of_hub_networks_agree(folders: dict[str, Path], name: str) -> None:
    extractor = load_extractor(name, weights=folders[name])
    images = _images(BATCH_SIZE + 6, 64)
    together = extractor.extract(images)
    colour = np.repeat(images[-2:, ..., None], 3, axis=-1)
    np.testing.assert_allclose(together[-2:], extractor.extract(colour), rtol=1e-4, atol=1e-5)
    assert extractor.extract(images[:0]).shape == (0, DIMS[name])


def test_large_pictures_go_by_fewer_with_the_same_features(tmp_path: Path) -> None:
    torch.manual_seed(0)
    _write_rad_dino(tmp_path, image_px=512, patch_px=128)
    extractor: Any = load_extractor("rad_dino", weights=tmp_path)
    images = _images(BATCH_SIZE // 4 + 3, 64)
    one_by_one = np.concatenate([extractor.extract(image[None]) for image in images])
    assert BATCH_SIZE % extractor.batch_size == 0 and extractor.batch_size < len(images)
    np.testing.assert_allclose(extractor.extract(images), one_by_one, rtol=1e-4, atol=1e-5)


def test_weights_and_preprocessing_are_told_apart(folders: dict[str, Path], tmp_path: Path) -> None:
    original = load_extractor("rad_dino", weights=folders["rad_dino"])
    shutil.copytree(folders["rad_dino"], tmp_path, dirs_exist_ok=True)
    same = load_extractor("rad_dino", weights=tmp_path)
    assert (same.weights_hash, same.preprocessing) == (original.weights_hash, original.preprocessing)
    settings = tmp_path / "preprocessor_config.json"
    settings.write_text(json.dumps(json.loads(settings.read_text()) | {"image_mean": [0.5] * 3}))
    other = load_extractor("rad_dino", weights=tmp_path)
    assert other.weights_hash == original.weights_hash and other.preprocessing != original.preprocessing
    torch.manual_seed(1)
    _write_rad_dino(tmp_path)
    assert load_extractor("rad_dino", weights=tmp_path).weights_hash != original.weights_hash


@pytest.mark.parametrize("missing", ["config.json", "preprocessor_config.json", "model.safetensors"])
def test_a_missing_file_says_what_to_fetch(folders: dict[str, Path], tmp_path: Path, missing: str) -> None:
    shutil.copytree(folders["clip"], tmp_path, dirs_exist_ok=True)
    (tmp_path / missing).unlink()
    remedy = r"huggingface.co/openai/clip-vit-large-patch14 .*--set evaluation.extractor_weights=FOLDER"
    with pytest.raises(
        FileNotFoundError, match=rf"`clip` must have .* but got no (\*\.safetensors|{missing}) in .*{remedy}"
    ):
        load_extractor("clip", weights=tmp_path)


@pytest.mark.parametrize(
    ("name", "hub_id"), [("clip", "openai/clip-vit-large-patch14"), ("rad_dino", "microsoft/rad-dino")]
)
def test_offline_it_says_which_network_and_where_to_put_it(
    name: str, hub_id: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(
        FileNotFoundError, match=rf"`{name}` must have the network of {hub_id}, .*extractor_weights=FOLDER"
    ):
        load_extractor(name)


def test_another_network_is_refused(folders: dict[str, Path], tmp_path: Path) -> None:
    with pytest.raises(
        ValueError, match=r"`clip` must have a configuration of model_type clip or .*, but got 'dinov2'"
    ):
        load_extractor("clip", weights=folders["rad_dino"])
    config = json.loads((folders["rad_dino"] / "config.json").read_text())
    shutil.copytree(folders["rad_dino"], tmp_path, dirs_exist_ok=True)
    (tmp_path / "config.json").write_text(json.dumps(config | {"num_hidden_layers": 3}))
    with pytest.raises(ValueError, match=r"`weights` must hold every tensor of Dinov2Model, .* without \d+, first"):
        load_extractor("rad_dino", weights=tmp_path)
    (tmp_path / "config.json").write_text(json.dumps(config | {"hidden_size": 32}))
    with pytest.raises(ValueError, match=r"`weights` must fit the configuration beside them"):
        load_extractor("rad_dino", weights=tmp_path)


def test_damaged_weights_of_the_hub_are_refused(folders: dict[str, Path], tmp_path: Path) -> None:
    shutil.copytree(folders["clip"], tmp_path, dirs_exist_ok=True)
    (tmp_path / "model.safetensors").write_bytes(b"no weights")
    with pytest.raises(ValueError, match=r"`weights` must fit the configuration beside them"):
        load_extractor("clip", weights=tmp_path)

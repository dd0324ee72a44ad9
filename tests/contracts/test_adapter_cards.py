"""Adapter folders: damaged ones, and those of other hyperparameters, are answered and leave the models alone."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file, save_file

from trainables.base_models.models import DiffusionModels, load_base
from trainables.sampling import pipeline_of
from trainables.strategies import load_adapter, make_strategy
from trainables.strategies.base import trained_parameters
from trainables.strategies.card import read_card


@pytest.fixture(scope="module")
def base() -> DiffusionModels:
    return load_base("mini")


@pytest.fixture
def adapter(base: DiffusionModels, tmp_path: Path) -> Path:
    models, strategy = base.fresh(), make_strategy("lora", {"rank": 2})
    strategy.attach(models)
    strategy.export(models, tmp_path)
    return tmp_path


def change_card(folder: Path, **changes: Any) -> None:
    file = folder / "adapter.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | changes))


@pytest.mark.slow
def test_an_adapter_brings_the_side_of_its_films_with_it(base: DiffusionModels, tmp_path: Path) -> None:
    models, strategy = base.fresh().for_films_of(96), make_strategy("lora", {"rank": 2})
    strategy.attach(models)
    strategy.export(models, tmp_path)
    restored = base.sharing()
    load_adapter(restored, tmp_path).merged(restored)
    assert (restored.resolution_px, base.resolution_px) == (96, 64)
    pipeline_of(restored).save_pretrained(tmp_path / "pipeline")
    assert load_base(str(tmp_path / "pipeline")).resolution_px == 96
    change_card(tmp_path, resolution_px=None)  # as those of earlier versions
    load_adapter(earlier := base.sharing(), tmp_path)
    assert earlier.resolution_px == 64


@pytest.mark.slow
@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"format": 2}, "`format` must be 1, but got 2"),
        ({"strategy": ["lora"]}, r"`adapter.json` must name its strategy, but got \['lora'\]"),
        ({"strategy": "lokr"}, "`strategy` must be a known name, but got 'lokr'"),
        (
            {"strategy": "dora", "hyperparameters": {"rank": 2}},
            "must hold exactly the trained tensors, but got none for",
        ),
        ({"resolution_px": 65}, r"`resolution_px` must be a multiple of 4, .* but got 65"),
        ({"hyperparameters": {"rank": 3}}, r"must have shape \(3, \d+\), but got \(2, \d+\)"),
        ({"hyperparameters": {"rank": 2, "targets": "all_linear"}}, "must hold exactly the trained tensors"),
    ],
)
def test_an_adapter_that_does_not_fit_its_card_is_refused(
    adapter: Path, base: DiffusionModels, changes: dict[str, Any], message: str
) -> None:
    change_card(adapter, **changes)
    with pytest.raises(ValueError, match=message):
        load_adapter(base.fresh(), adapter)


@pytest.mark.slow
@pytest.mark.parametrize(
    "card", ["{", "[]", '{"format": 1}', '{"format": 1, "strategy": "lora", "hyperparameters": {}, "base": 3}']
)
def test_a_damaged_card_is_answered(adapter: Path, card: str) -> None:
    (adapter / "adapter.json").write_text(card)
    with pytest.raises(ValueError, match=r"`adapter.json` must"):
        read_card(adapter)


def test_a_card_that_is_no_text_is_answered(adapter: Path) -> None:
    (adapter / "adapter.json").write_bytes(b'{"format": "\xff"}')
    with pytest.raises(ValueError, match=r"`adapter.json` must be JSON in UTF-8, but got .* Export the adapter again"):
        read_card(adapter)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "trained", "other", "message"),
    [
        (
            "lora",
            {"alpha": 4.0},
            {"alpha": 64.0},
            "`hyperparameters` must be the adapter's, alpha=4.0, but got alpha=64.0.",
        ),
        ("lora", {}, {"rslora": True}, "rslora=False, but got rslora=True"),
        ("adalora", {}, {"alpha": 2.0, "initial_ratio": 1.4}, "alpha=16.0, initial_ratio=1.5, but got alpha=2.0, init"),
        ("lora+text_encoder", {"lora.alpha": 4.0}, {}, "lora.alpha=4.0, but got lora.alpha=16.0"),
        ("textual_inversion", {"words": ["edema"]}, {"words": ["mass"]}, "words=['edema'], but got words=['mass']"),
    ],
)
def test_an_adapter_under_other_hyperparameters_is_refused(
    base: DiffusionModels, tmp_path: Path, name: str, trained: dict[str, Any], other: dict[str, Any], message: str
) -> None:
    models, strategy = base.fresh(), make_strategy(name, trained)
    strategy.attach(models)
    strategy.export(models, tmp_path)
    fresh = base.fresh()
    with pytest.raises(ValueError) as answer:
        make_strategy(name, other).restore(fresh, tmp_path)
    assert message in str(answer.value)
    assert not list(trained_parameters(fresh))
    make_strategy(name, trained).restore(fresh, tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize(
    "spoil",
    [lambda tensor: tensor * float("nan"), lambda tensor: tensor.int(), lambda tensor: tensor.sum()],
    ids=["NaN", "integers", "no matrix"],
)
@pytest.mark.parametrize("strategy", ["lora", "adalora", "selora", "dylora", "nested_lora"])
def test_tensors_that_are_no_weights_are_refused(
    strategy: str, spoil: Any, base: DiffusionModels, tmp_path: Path
) -> None:
    models, chosen = base.fresh(), make_strategy(strategy, {})
    chosen.attach(models)
    chosen.export(models, tmp_path)
    tensors = load_file(tmp_path / "adapter.safetensors")
    name = next(name for name in tensors if name.endswith("lora_A"))
    save_file({**tensors, name: spoil(tensors[name])}, tmp_path / "adapter.safetensors")
    with pytest.raises(ValueError, match=r"must (have shape|hold finite numbers)"):
        load_adapter(base.fresh(), tmp_path)


def test_a_file_that_is_no_safetensors_leaves_the_models_as_they_were(adapter: Path, base: DiffusionModels) -> None:
    (adapter / "adapter.safetensors").write_bytes(b"\x80\x04pickle")
    models = base.fresh()
    with pytest.raises(ValueError, match=r"`adapter.safetensors` must be a safetensors file"):
        load_adapter(models, adapter)
    assert not list(trained_parameters(models))
    assert models.unet.state_dict().keys() == base.unet.state_dict().keys()


def test_a_folder_without_an_adapter_is_answered(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"`adapter` must be a folder with an adapter.json"):
        read_card(tmp_path)

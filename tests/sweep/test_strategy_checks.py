"""What is refused before a sweep because a trial with a text encoder of its own could not begin."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import huggingface_hub
import pytest
import torch
from optuna import create_study

from search_spaces import ENCODERS, SEARCH_SPACES
from sweep.config import ConfigError, SearchConfig, SweepConfig
from sweep.loading import load_config
from sweep.preflight import check_budget, check_strategies
from trainables.base_models.bert_layout import write_bert_layout
from trainables.base_models.text_encoders import load_bert, resolve_encoder
from trainables.budgets import Budget
from trainables.settings import TrainingConfig
from trainables.strategies import make_strategy

ALONE, COMBINED = "text_encoder_swap", "text_encoder_swap+textual_inversion"


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An encoder that every trial can load."""
    folder = tmp_path_factory.mktemp("encoders") / "bert"
    write_bert_layout(folder)
    return folder


def swap(name: str, **fields: Any) -> SweepConfig:
    hyperparameters = fields if name == ALONE else {ALONE: fields}
    return SweepConfig(search=SearchConfig(space="core", strategies=(name,), hyperparameters={name: hyperparameters}))


@pytest.mark.slow
@pytest.mark.parametrize("name", [ALONE, COMBINED])
def test_a_trial_elsewhere_finds_a_folder_that_was_given_relatively(
    name: str, sound: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(sound.parent)
    config = swap(name, encoder="bert").located()
    check_strategies(config)
    choice = SEARCH_SPACES["core"](create_study().ask(), strategies=(name,), fixed=config.search.hyperparameters)
    monkeypatch.chdir(tmp_path)
    hyperparameters = dict(choice["strategy"])
    strategy = make_strategy(hyperparameters.pop("name"), hyperparameters)
    encoder = strategy.hyperparameters()["encoder" if name == ALONE else f"{ALONE}.encoder"]
    assert resolve_encoder(encoder).samefile(sound)
    assert load_bert(encoder, num_tokens=77, device=torch.device("cpu")).identity != "none"


def test_an_encoder_of_the_hub_keeps_its_name() -> None:
    config = swap(ALONE, encoder=ENCODERS[1], train_encoder=True)
    assert config.located().search.hyperparameters == {ALONE: {"encoder": ENCODERS[1], "train_encoder": True}}


@pytest.mark.slow
@pytest.mark.parametrize("name", ["adalora", "adalora+text_encoder"])
def test_a_strategy_that_plans_by_steps_is_not_trained_by_the_clock(name: str) -> None:
    for budget, is_refused in (({"seconds": 60}, True), ({"steps": 60}, False)):
        search = SearchConfig(strategies=(name,), budget=Budget(**budget))
        config = SweepConfig(search=search, objectives=("fid", "vendi"))
        if is_refused:
            with pytest.raises(ConfigError, match=rf"{re.escape(name)}: `search.budget.seconds` must be of strategies"):
                check_strategies(config)
        else:
            check_strategies(config)


@pytest.mark.parametrize(
    ("settings", "answer"),
    [
        (
            ("search.budget.steps=2",),
            "at least the 3 epochs of training.num_epochs, into which it is divided, but got 2",
        ),
        (("search.budget.seconds=60",), "but got epoch_s with search.budget.seconds=60, of which each epoch takes 20"),
        (("search.budget.steps=9", "search.budget.images=9"), "in one way, but got steps and images"),
        (("search.budget.images=0",), "`search.budget.images` must be greater than or equal to 1, but got 0"),
        (("search.budget.epochs=9",), "but got 'search.budget.epochs'"),
    ],
)
def test_budgets_that_no_trial_can_keep_are_refused(settings: tuple[str, ...], answer: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(answer)):
        load_config("demo", None, ["training.num_epochs=3", *settings])


def test_a_budget_of_images_must_hold_a_batch_an_epoch() -> None:
    for images, is_refused in ((95, True), (96, False)):
        search = SearchConfig(strategies=("bitfit",), budget=Budget(images=images))  # batches are of 16 or 32
        config = SweepConfig(search=search, training=TrainingConfig(num_epochs=3))
        if is_refused:
            with pytest.raises(ConfigError, match=r"num_epochs=3 times the largest batch of 32, 96 images, but got 95"):
                check_budget(config, ("bitfit",))
        else:
            check_budget(config, ("bitfit",))


def pickled(folder: Path) -> None:
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")


def wordless(folder: Path) -> None:
    (folder / "vocab.txt").unlink()


def cut_off(folder: Path) -> None:
    whole = (folder / "model.safetensors").read_bytes()
    (folder / "model.safetensors").write_bytes(whole[: len(whole) // 2])


DAMAGES = [
    (pickled, r"must have its weights as \*.safetensors, but got \['pytorch_model.bin'\] .* convert .* or try "),
    (wordless, r"must have its vocabulary .* but got none .* Save its tokenizer there"),
    (cut_off, r"must have whole weights that fit its config.json, but got .* Copy or download it anew"),
]


@pytest.mark.slow
@pytest.mark.parametrize("name", [ALONE, COMBINED])
@pytest.mark.parametrize(("damage", "message"), DAMAGES)
def test_an_encoder_that_no_trial_could_load_is_refused(
    damage: Callable[[Path], None], message: str, name: str, sound: Path, tmp_path: Path
) -> None:
    folder = shutil.copytree(sound, tmp_path / "damaged")
    config = swap(name, encoder=str(folder))
    check_strategies(config)
    damage(folder)
    with pytest.raises(ConfigError, match=f"(?s)`search.strategies` has {re.escape(name)}: `encoder` {message}"):
        check_strategies(config)


@pytest.mark.slow
@pytest.mark.parametrize("name", [ALONE, COMBINED])
@pytest.mark.parametrize("lacking", ENCODERS)
def test_every_encoder_that_the_space_suggests_is_loaded(
    lacking: str, name: str, sound: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Folders with the names of the hub's stand for downloads."""
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    monkeypatch.chdir(tmp_path)
    for encoder in ENCODERS:
        shutil.copytree(sound, tmp_path / encoder)
    check_strategies(swap(name))
    pickled(tmp_path / lacking)
    (other,) = set(ENCODERS) - {lacking}
    field = "encoder" if name == ALONE else f"{ALONE}.encoder"
    with pytest.raises(ConfigError) as refused:
        check_strategies(swap(name))
    assert f"in {str(tmp_path / lacking)!r}" in str(refused.value)
    assert f"or try {other}. The space draws the encoder" in str(refused.value)
    assert str(refused.value).endswith(f"--set search.hyperparameters.{name}.{field}=ENCODER.")
    check_strategies(swap(name, encoder=other))

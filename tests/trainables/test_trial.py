"""The train function of a trial: what its seed decides."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from trainables.base_models.bert_layout import write_bert_layout
from trainables.base_models.models import COMPONENTS, DiffusionModels, load_base
from trainables.datasets.store import PreparedDataset
from trainables.settings import TrainingConfig
from trainables.strategies.base import trained_parameters
from trainables.trial import TrialSpec, attached, components_in_training, fine_tune, strategy_of


def _spec(
    seed: int, *, strategy: str = "lora", dataset: Path = Path("data"), out: Path = Path(), **training: Any
) -> TrialSpec:
    own = {"encoder": str(out / "encoder")} if strategy == "text_encoder_swap" else {}
    return TrialSpec(
        base="mini", dataset=dataset, folder=out / "trial", cache_folder=out / "cache", strategy={"name": strategy, **own},
        lr=1e-3, batch_size=32, seed=seed, training=TrainingConfig(num_epochs=1, mixed_precision="no", **training),
    )  # fmt: skip


def _start(seed: int) -> dict[str, torch.Tensor]:
    spec = _spec(seed)
    models = attached(spec, strategy_of(spec))
    return {name: parameter.detach() for name, parameter in trained_parameters(models)}


@pytest.fixture(autouse=True)
def _keep_the_global_generator() -> object:
    with torch.random.fork_rng(devices=[]):
        yield


def test_the_seed_alone_decides_where_an_adapter_starts() -> None:
    """A reused process has drawn other random numbers before."""
    torch.manual_seed(1)
    first = _start(seed=7)
    torch.manual_seed(2)
    again, other = _start(seed=7), _start(seed=8)
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert any(not torch.equal(first[name], other[name]) for name in first)


@pytest.mark.parametrize(
    ("strategy", "parts"),
    [
        ("lora", {"unet"}),
        ("text_encoder", {"unet", "text_encoder"}),
        ("vae", {"unet", "vae"}),
        ("all", {"unet", "vae", "text_encoder"}),
    ],
)
def test_frozen_encoders_are_loaded_only_where_their_outputs_are_not_cached(strategy: str, parts: set[str]) -> None:
    for cached, due in ((True, parts), (False, set(COMPONENTS))):
        spec = _spec(0, strategy=strategy, cache_latents=cached)
        models = attached(spec, strategy_of(spec), components_in_training(spec, strategy_of(spec)))
        assert {name for name in COMPONENTS if models.is_loaded(name)} == due


def test_a_part_that_is_not_loaded_has_no_weights_and_the_others_have_theirs(base: DiffusionModels) -> None:
    models = load_base("mini", ("unet",)).to("cpu")
    assert all(parameter.is_meta for parameter in models.vae.parameters())
    assert all(parameter.is_meta for parameter in models.text_encoder.parameters())
    assert all(torch.equal(value, base.unet.state_dict()[key]) for key, value in models.unet.state_dict().items())
    assert models.base == base.base and models.resolution_px == base.resolution_px
    assert models.scheduler_config == base.scheduler_config


class _Scores:
    """An evaluator that gives a number."""

    def evaluate(self, adapter: Path) -> dict[str, float]:
        return {"fid_none": 1.0}


@pytest.mark.parametrize("strategy", ["lora", "unet+text_encoder", "vae", "textual_inversion", "text_encoder_swap"])
def test_a_trial_trains_alike_with_and_without_its_frozen_encoders(
    strategy: str, dataset: PreparedDataset, tmp_path: Path
) -> None:
    losses = []
    for cached in (True, True, False):  # the second finds the first one's cache, and loads no encoder at all
        reports: list[dict[str, Any]] = []
        out = tmp_path / str(cached)
        write_bert_layout(out / "encoder", hidden_size=48)
        fine_tune(
            _spec(3, strategy=strategy, dataset=dataset.folder, out=out, cache_latents=cached),
            _Scores(),
            reports.append,
        )
        assert reports[-1]["final"] and reports[-1]["fid_none"] == 1.0
        losses.append(reports[-1]["loss"])
    assert losses == pytest.approx([losses[0]] * 3, rel=1e-5)

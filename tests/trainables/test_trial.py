"""The train function of a trial: what its seed decides."""

from __future__ import annotations

import gc
import json
import shutil
import threading
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch._dynamo.exc import InvalidBackend

from trainables.base_models.bert_layout import write_bert_layout
from trainables.base_models.models import COMPONENTS, DiffusionModels, load_base
from trainables.checkpoints import read_checkpoint
from trainables.datasets.phantom import PhantomSource
from trainables.datasets.store import DataChangedError, PreparedDataset
from trainables.datasets.writing import write_dataset
from trainables.settings import TrainingConfig
from trainables.strategies import make_strategy
from trainables.strategies.base import Strategy, trained_parameters
from trainables.strategies.card import read_card
from trainables.suspending import IN_TRAINING, SuspendedError, suspend
from trainables.trial import (
    EvaluationError,
    TrialSpec,
    attached,
    components_in_training,
    fine_tune,
    strategy_of,
    warm_base,
)

pytestmark = pytest.mark.slow


def _spec(
    seed: int, *, strategy: str = "lora", dataset: Path = Path("data"), out: Path = Path(), **training: Any
) -> TrialSpec:
    hyperparameters = {"encoder": str(out / "encoder")} if strategy == "text_encoder_swap" else {}
    return TrialSpec(
        base="mini",
        dataset=dataset,
        folder=out / "trial",
        cache_folder=out / "cache",
        strategy={"name": strategy, **hyperparameters},
        lr=1e-3,
        batch_size=8,
        seed=seed,
        training=TrainingConfig(num_epochs=1, mixed_precision="no", **training),
    )


def _start(seed: int, base: DiffusionModels) -> dict[str, torch.Tensor]:
    spec = _spec(seed)
    models = attached(spec, strategy_of(spec), base.fresh())
    return {name: parameter.detach() for name, parameter in trained_parameters(models)}


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> PreparedDataset:
    """Films of which thirteen are for training: two of the batches that trials have here."""
    source = PhantomSource(num_patients=19, resolution_px=64, seed=45)
    return write_dataset(source, tmp_path_factory.mktemp("data") / "phantom")


@pytest.fixture(autouse=True)
def _keep_the_global_generator() -> object:
    with torch.random.fork_rng(devices=[]):
        yield


def test_the_seed_alone_decides_where_an_adapter_starts(base: DiffusionModels) -> None:
    """A reused process has drawn other random numbers before."""
    torch.manual_seed(1)
    first = _start(7, base)
    torch.manual_seed(2)
    again, other = _start(7, base), _start(8, base)
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
        models = warm_base("mini", components_in_training(spec, strategy_of(spec)))
        assert {name for name in COMPONENTS if models.is_loaded(name)} == due


def test_only_what_trains_is_in_memory_while_it_does_even_where_the_trial_filled_the_caches(
    dataset: PreparedDataset, tmp_path: Path
) -> None:
    def alive() -> set[str]:
        gc.collect()
        loaded = [each for each in gc.get_objects() if isinstance(each, DiffusionModels)]
        return {name for each in loaded for name in COMPONENTS if each.is_loaded(name) and each not in before}

    gc.collect()
    before = [each for each in gc.get_objects() if isinstance(each, DiffusionModels)]
    seen: list[set[str]] = []
    for strategy in ("text_encoder", "lora", "lora"):
        spec = _spec(3, strategy=strategy, dataset=dataset.folder, out=tmp_path)
        fine_tune(spec, _Scores(), lambda report: seen.append(alive()))
    assert seen == [{"unet", "text_encoder"}, {"unet"}, {"unet"}]


def test_a_part_that_is_not_loaded_has_no_weights_and_the_others_have_theirs(base: DiffusionModels) -> None:
    models = load_base("mini", ("unet",)).to("cpu")
    assert all(parameter.is_meta for parameter in models.vae.parameters())
    assert all(parameter.is_meta for parameter in models.text_encoder.parameters())
    weights = base.unet.state_dict()
    assert all(torch.equal(value, weights[key]) for key, value in models.unet.state_dict().items())
    assert models.base == base.base and models.resolution_px == base.resolution_px
    assert models.scheduler_config == base.scheduler_config


class _Scores:
    """An evaluator that gives a number."""

    def evaluate(self, adapter: Path, share_done: float) -> dict[str, float]:
        return {"fid_none": 1.0}


def test_a_trial_is_compiled_by_what_its_specification_names(dataset: PreparedDataset, tmp_path: Path) -> None:
    """Seen by torch's refusal of one that there is not."""
    spec = _spec(3, dataset=dataset.folder, out=tmp_path).model_copy(update={"compiler": "no-such-compiler"})
    with pytest.raises(InvalidBackend, match="no-such-compiler"):
        fine_tune(spec, _Scores(), lambda report: None)


@pytest.mark.parametrize("strategy", ["lora", "unet+text_encoder", "vae", "textual_inversion", "text_encoder_swap"])
def test_a_trial_trains_alike_with_and_without_its_frozen_encoders(
    strategy: str, dataset: PreparedDataset, tmp_path: Path
) -> None:
    losses = []
    for cached in (True, True, False):  # the second finds the first one's cache, and loads no encoder at all
        reports: list[dict[str, Any]] = []
        out = tmp_path / str(cached)
        if strategy == "text_encoder_swap":
            write_bert_layout(out / "encoder", hidden_size=48)
        fine_tune(
            _spec(3, strategy=strategy, dataset=dataset.folder, out=out, cache_latents=cached),
            _Scores(),
            reports.append,
        )
        assert reports[-1]["final"] and reports[-1]["fid_none"] == 1.0
        losses.append(reports[-1]["loss"])
    assert losses == pytest.approx([losses[0]] * 3, rel=1e-5)


def _trained_card(spec: TrialSpec) -> dict[str, Any]:
    """The hyperparameters that a trial exported."""
    fine_tune(spec, _Scores(), lambda report: None)
    return read_card(spec.folder / "adapter")["hyperparameters"]


def test_new_tokens_train_for_the_conditions_of_whatever_data(dataset: PreparedDataset, tmp_path: Path) -> None:
    folder = shutil.copytree(dataset.folder, tmp_path / "data")
    card = json.loads((folder / "dataset.json").read_text())
    (folder / "dataset.json").write_text(json.dumps(card | {"conditions": ["Pneumothorax", "Edema"]}))
    spec = _spec(3, strategy="textual_inversion", dataset=folder, out=tmp_path)
    assert _trained_card(spec)["words"] == ["pneumothorax", "edema"]


def test_new_tokens_that_no_caption_has_are_refused(dataset: PreparedDataset, tmp_path: Path) -> None:
    spec = _spec(3, strategy="textual_inversion", dataset=dataset.folder, out=tmp_path)
    spec = spec.model_copy(update={"strategy": {"name": "textual_inversion", "words": ["nodule", "edema"]}})
    with pytest.raises(ValueError, match=r"`words` must .* but got \['nodule'\], .* conditions are Cardiomegaly, Lung"):
        fine_tune(spec, _Scores(), lambda report: None)
    assert not (tmp_path / "trial").exists()


class _FailsAt:
    """An evaluator that fails at some of its calls."""

    def __init__(self, *calls: int) -> None:
        self.calls, self.num_calls = calls, 0

    def evaluate(self, adapter: Path, share_done: float) -> dict[str, float]:
        self.num_calls += 1
        if self.num_calls in self.calls:
            raise EvaluationError("`images` must be finite")
        return {"fid_none": 1.0}


def test_a_trial_whose_films_are_not_those_that_its_sweep_began_with_does_not_train(
    dataset: PreparedDataset, tmp_path: Path
) -> None:
    """As where another process has drawn them anew."""
    spec = _spec(3, dataset=dataset.folder, out=tmp_path).model_copy(update={"fingerprint": "of then"})
    with pytest.raises(DataChangedError, match=f"began with, of then, but got {dataset.fingerprint} in"):
        fine_tune(spec, _Scores(), pytest.fail)


def test_a_failed_evaluation_costs_an_early_report_its_metrics_and_a_trial_its_end(
    dataset: PreparedDataset, tmp_path: Path
) -> None:
    spec = _spec(3, dataset=dataset.folder, out=tmp_path, evaluate_every_epochs=1)
    spec = spec.model_copy(update={"training": spec.training.model_copy(update={"num_epochs": 2})})
    reports: list[dict[str, Any]] = []
    fine_tune(spec, _FailsAt(1), reports.append)
    assert reports[0]["evaluation_error"] == "`images` must be finite" and "fid_none" not in reports[0]
    assert reports[1]["fid_none"] == 1.0 and "evaluation_error" not in reports[1]
    with pytest.raises(EvaluationError, match="`images` must be finite"):
        fine_tune(spec, _FailsAt(2), reports.append)
    assert len(reports) == 3  # no final report


def _reports(dataset: PreparedDataset, out: Path, strategy: dict[str, Any]) -> list[dict[str, Any]]:
    spec = _spec(3, dataset=dataset.folder, out=out).model_copy(update={"strategy": strategy, "batch_size": 3})
    reports: list[dict[str, Any]] = []
    fine_tune(spec, _Scores(), reports.append)
    return reports


def test_ranks_that_changed_are_written_beside_the_adapter_and_reported(
    dataset: PreparedDataset, tmp_path: Path
) -> None:
    report = _reports(dataset, tmp_path, {"name": "selora", "interval": 2, "threshold": 1.25})[-1]
    written = json.loads((tmp_path / "trial" / "ranks.json").read_text())
    tensors = load_file(tmp_path / "trial" / "adapter" / "adapter.safetensors")
    final = {name.removesuffix(".lora_A"): len(value) for name, value in tensors.items() if name.endswith(".lora_A")}
    assert dict(zip(written["layers"], written["ranks"][-1], strict=True)) == final
    assert written["steps"][:2] == [0, 3] and written["steps"] == sorted(written["steps"])
    assert set(written["ranks"][0]) == {1} and 1 < max(final.values()) <= len(written["steps"])
    assert report["mean_rank"] == pytest.approx(sum(final.values()) / len(final))
    assert report["max_rank"] == max(final.values())
    assert report["trainable_parameters"] == sum(value.numel() for value in tensors.values())


def test_ranks_that_stay_are_reported_and_strategies_without_have_none(
    dataset: PreparedDataset, tmp_path: Path
) -> None:
    lora = _reports(dataset, tmp_path / "lora", {"name": "lora", "rank": 3})[-1]
    assert lora["mean_rank"] == lora["max_rank"] == 3
    assert "mean_rank" not in _reports(dataset, tmp_path / "bitfit", {"name": "bitfit"})[-1]
    assert not list(tmp_path.rglob("ranks.json"))


class _KilledError(BaseException):
    """The process's end."""


def test_a_trial_that_was_killed_goes_on_and_ends_as_if_it_had_not_been(
    dataset: PreparedDataset, tmp_path: Path
) -> None:
    def spec(out: Path, **changes: Any) -> TrialSpec:
        whole = _spec(3, strategy="selora", dataset=dataset.folder, out=out, checkpoint_every_s=0, ema_decay=0.9)
        training = whole.training.model_copy(update={"num_epochs": 3})
        return whole.model_copy(update={"training": training, "cache_folder": tmp_path / "cache"} | changes)

    whole: list[dict[str, Any]] = []
    fine_tune(spec(tmp_path / "whole"), _Scores(), whole.append)
    killed: list[dict[str, Any]] = []

    def kill_at_second(report: dict[str, Any]) -> None:
        if len(killed) == 1:
            raise _KilledError
        killed.append(report)

    with pytest.raises(_KilledError):
        fine_tune(spec(tmp_path / "killed"), _Scores(), kill_at_second)
    with pytest.raises(ValueError, match="`checkpoint` of a trial must be of the same training"):
        fine_tune(spec(tmp_path / "killed", lr=2e-3), _Scores(), killed.append)
    fine_tune(spec(tmp_path / "killed"), _Scores(), killed.append)
    kept = ("epoch", "loss", "lr", "trainable_parameters", "mean_rank", "final")
    assert [{name: report[name] for name in kept} for report in killed] == [
        {name: report[name] for name in kept} for report in whole
    ]
    for file in ("adapter/adapter.safetensors", "adapter/adapter.json"):
        assert (tmp_path / "killed" / "trial" / file).read_bytes() == (tmp_path / "whole" / "trial" / file).read_bytes()


class _SuspendsInEvaluation:
    """An evaluator during whose last evaluation the trial is asked to suspend itself, and which never ends."""

    def evaluate(self, adapter: Path, share_done: float) -> dict[str, float]:
        suspend([adapter.parent], within_s=0)
        threading.Event().wait()
        raise AssertionError


def test_a_trial_that_is_suspended_wherever_it_is_goes_on_and_ends_as_if_it_had_not_been(
    dataset: PreparedDataset, tmp_path: Path
) -> None:
    """While its report is not heard, within an epoch, and while it is evaluated; each time with nothing kept before."""

    def spec(out: Path) -> TrialSpec:
        whole = _spec(3, strategy="adalora", dataset=dataset.folder, out=out, ema_decay=0.9)
        training = whole.training.model_copy(update={"num_epochs": 3})
        return whole.model_copy(update={"training": training, "cache_folder": tmp_path / "cache", "batch_size": 3})

    whole: list[dict[str, Any]] = []
    fine_tune(spec(tmp_path / "whole"), _Scores(), whole.append)
    broken, reports = spec(tmp_path / "broken"), list[dict[str, Any]]()

    def not_heard(report: dict[str, Any]) -> None:
        suspend([broken.folder], within_s=0)
        threading.Event().wait()

    def heard_last(report: dict[str, Any]) -> None:
        reports.append(report)
        threading.Thread(target=suspend_after, args=(threading.current_thread(),)).start()

    def suspend_after(reporting: threading.Thread) -> None:
        reporting.join()
        suspend([broken.folder], within_s=0)

    places: list[tuple[int, bool]] = []
    for evaluator, report in (
        (_Scores(), not_heard),
        (_Scores(), heard_last),
        (_SuspendsInEvaluation(), reports.append),
    ):
        with pytest.raises(SuspendedError):
            fine_tune(broken, evaluator, report)
        kept = read_checkpoint(broken.folder)
        assert kept is not None and not (broken.folder / IN_TRAINING).exists()
        places.append((kept.facts["next_epoch"], kept.facts["under_way"] is not None))
    fine_tune(broken, _Scores(), reports.append)
    assert places == [(1, False), (1, True), (2, True)]
    kept_names = ("epoch", "loss", "lr", "trainable_parameters", "mean_rank", "final")
    assert [{name: report[name] for name in kept_names} for report in reports] == [
        {name: report[name] for name in kept_names} for report in whole
    ]
    weights = "trial/adapter/adapter.safetensors"
    assert (tmp_path / "broken" / weights).read_bytes() == (tmp_path / "whole" / weights).read_bytes()


def test_a_disk_that_takes_no_checkpoint_does_not_end_the_trial_and_is_named_once(
    dataset: PreparedDataset, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    spec = _spec(3, dataset=dataset.folder, out=tmp_path, checkpoint_every_s=0)
    spec = spec.model_copy(update={"training": spec.training.model_copy(update={"num_epochs": 3})})
    spec.folder.mkdir()
    (spec.folder / "checkpoints").write_text("no folder can be made here")
    reports: list[dict[str, Any]] = []
    fine_tune(spec, _Scores(), reports.append)
    assert [report["final"] for report in reports] == [False, False, True]
    (said,) = [record.getMessage() for record in caplog.records if record.name == "trainables.keeping"]
    assert said.startswith(f"`checkpoint` of {spec.folder} must fit on the disk, but got: ")


def test_ranks_are_asked_with_the_weights_that_are_exported(
    dataset: PreparedDataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[dict[str, torch.Tensor]] = []
    lora = type(make_strategy("lora", {}))
    ranks = lora.ranks

    def recorded(self: Strategy, models: DiffusionModels) -> dict[str, int]:
        asked.append({path: parameter.detach().clone() for path, parameter in self.trained(models)})
        return ranks(self, models)  # type: ignore[arg-type]

    monkeypatch.setattr(lora, "ranks", recorded)
    spec = _spec(3, dataset=dataset.folder, out=tmp_path, ema_decay=0.9)
    fine_tune(spec.model_copy(update={"batch_size": 3}), _Scores(), lambda report: None)
    exported = load_file(tmp_path / "trial" / "adapter" / "adapter.safetensors")
    assert all(torch.equal(asked[-1][path], exported[path]) for path in exported)

"""SeLoRA: what a test of another rank computes, what a layer keeps of it, and where ranks grow."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from trainables.accelerators import new_accelerator
from trainables.averages import MovingAverage
from trainables.base_models.models import DiffusionModels
from trainables.batches import BatchPlan
from trainables.datasets.store import PreparedDataset
from trainables.epoch_report import EpochReport
from trainables.feeding import BatchFeeder
from trainables.growth import adopt, adopt_average
from trainables.settings import TrainingConfig
from trainables.strategies import make_strategy
from trainables.strategies.base import TrainingStep
from trainables.strategies.selora import SelfExpandingLayer, SeLoRA
from trainables.training import FineTuning

WIDTH, TRUE_RANK = 32, 3


class Projections(nn.Module):
    """Query, key and value of the same input, beside each other."""

    def __init__(self) -> None:
        super().__init__()
        self.to_q, self.to_k, self.to_v = (nn.Linear(WIDTH, WIDTH, bias=False) for _ in range(3))
        self.requires_grad_(False)

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([self.to_q(x), self.to_k(x), self.to_v(x)], dim=-1)


class Small:
    """A model of the three projections with SeLoRA on them, and its optimiser."""

    def __init__(self, base: DiffusionModels, **hyperparameters: Any) -> None:
        self.models = copy.copy(base)
        self.models.unet = Projections()
        self.strategy = make_strategy("selora", hyperparameters)
        self.strategy.attach(self.models)
        assert isinstance(self.strategy, SeLoRA)
        self.layers = self.strategy.expanding(self.models)
        self.optimizer = torch.optim.AdamW(self.strategy.param_groups(self.models, 1e-2), weight_decay=0.0)

    def step(self, number: int, loss: Callable[[], Tensor], num_steps: int = 1000) -> bool:
        """One step as the trainer takes it; whether a rank has grown."""
        step = TrainingStep(number=number, num_steps=num_steps, seed=3)
        self.strategy.on_step_start(self.models, step)
        loss().backward()
        self.strategy.on_gradients(self.models, lambda tensor: tensor)
        self.optimizer.step()
        change = self.strategy.on_step_end(self.models, step)
        self.optimizer.zero_grad()
        if change is not None:
            adopt(change.grown, self.optimizer)
        return change is not None

    def ranks(self) -> list[int]:
        return list(self.strategy.ranks(self.models).values())

    def loss(self, seed: int) -> Tensor:
        output: Tensor = self.models.unet(inputs(seed))
        return (output - torch.linspace(-1, 1, output.shape[-1])).square().mean()


def inputs(seed: int, number: int = 16) -> Tensor:
    return torch.randn(number, WIDTH, generator=torch.Generator().manual_seed(seed))


def layer_of(base: nn.Linear | nn.Conv2d) -> SelfExpandingLayer:
    """A layer of rank 2 whose factors have left their initial values."""
    torch.manual_seed(0)
    layer = SelfExpandingLayer(base.requires_grad_(False), 2, 8.0)
    nn.init.normal_(layer.lora_B)
    return layer


LAYERS: dict[str, Callable[[], tuple[SelfExpandingLayer, Tensor]]] = {
    "linear": lambda: (layer_of(nn.Linear(5, 7)), torch.randn(4, 6, 5)),
    "convolution": lambda: (layer_of(nn.Conv2d(3, 4, 3, stride=2, padding=1)), torch.randn(2, 3, 8, 8)),
}


@pytest.mark.parametrize("name", LAYERS)
def test_trying_a_rank_changes_no_bit_and_keeping_it_nothing(name: str) -> None:
    layer, x = LAYERS[name]()
    before = layer(x)
    gradients = torch.autograd.grad(before.square().sum(), [layer.lora_A, layer.lora_B])
    layer.propose(torch.Generator().manual_seed(1))
    tried = layer(x)
    assert torch.equal(tried, before)
    for mine, expected in zip(
        torch.autograd.grad(tried.square().sum(), [layer.lora_A, layer.lora_B]), gradients, strict=True
    ):
        assert torch.equal(mine, expected)
    assert layer.candidate is not None
    layer.keep(layer.candidate)
    assert layer.rank == 3
    torch.testing.assert_close(layer(x), before, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("name", LAYERS)
def test_the_ratio_is_that_of_an_explicitly_expanded_layer(name: str) -> None:
    """Equation 5 by building the larger factors and differentiating by them, in float64."""
    layer, x = LAYERS[name]()
    layer, x = layer.double(), x.double()
    layer.propose(torch.Generator().manual_seed(1))
    candidate = layer.candidate
    assert candidate is not None
    layer.candidate = candidate = type(candidate)(candidate.row.double(), candidate.column.detach().double())
    candidate.column.requires_grad_()
    layer(x).sin().sum().backward()
    gain = candidate.gradient.square().sum()
    ratio = 1 + gain / layer.information()

    a = torch.cat([layer.lora_A, candidate.row]).detach().requires_grad_()
    b = torch.cat([layer.lora_B, torch.zeros_like(candidate.column)], dim=1).detach().requires_grad_()
    weight = layer.base.weight + 8.0 * (b @ a).view_as(layer.base.weight)
    output = (
        nn.functional.conv2d(x, weight, layer.base.bias, stride=2, padding=1)
        if isinstance(layer.base, nn.Conv2d)
        else nn.functional.linear(x, weight, layer.base.bias)
    )
    da, db = torch.autograd.grad(output.sin().sum(), [a, b])
    expanded = da.square().sum() + db.square().sum()
    current = da[:-1].square().sum() + db[:, :-1].square().sum()
    assert torch.equal(da[-1], torch.zeros_like(da[-1]))
    assert ratio.item() == pytest.approx((expanded / current).item(), rel=1e-10)
    assert ratio > 1.001


def ratios(small: Small) -> list[float]:
    """Of the candidates that are being tried."""
    values = []
    for layer in small.layers.values():
        assert layer.candidate is not None
        values.append(1 + (layer.candidate.gradient.square().sum() / layer.information()).item())
    return values


@pytest.mark.parametrize("scale", [1.0, 65536.0])
def test_exactly_the_layers_at_or_above_the_threshold_grow(base: DiffusionModels, scale: float) -> None:
    """Gradients that fp16 has scaled give the same answer."""
    small = Small(base, threshold=1.01, interval=1)
    for number in range(3):
        small.step(0, lambda seed=number: small.loss(seed))  # type: ignore[misc]
    probe = copy.deepcopy(small)
    step = TrainingStep(number=1, num_steps=9, seed=3)
    probe.strategy.on_step_start(probe.models, step)
    probe.loss(5).backward()
    measured = ratios(probe)
    threshold = sorted(measured)[1]
    small.strategy = make_strategy("selora", {"threshold": threshold * (1 - 1e-6), "interval": 1})
    small.step(1, lambda: scale * small.loss(5), num_steps=9)
    assert small.ranks() == [2 if ratio >= threshold else 1 for ratio in measured]
    assert sorted(small.ranks()) == [1, 2, 2]


def test_the_row_that_was_tested_is_the_one_kept(base: DiffusionModels) -> None:
    small = Small(base, threshold=1.0, interval=1)
    small.step(0, lambda: small.loss(0))
    step = TrainingStep(number=1, num_steps=9, seed=3)
    small.strategy.on_step_start(small.models, step)
    rows = {path: layer.candidate.row.clone() for path, layer in small.layers.items() if layer.candidate}
    small.loss(1).backward()
    small.strategy.on_gradients(small.models, lambda tensor: tensor)
    small.optimizer.step()
    stepped = {
        path: (layer.lora_A.detach().clone(), layer.lora_B.detach().clone()) for path, layer in small.layers.items()
    }
    small.strategy.on_step_end(small.models, step)
    bound = 1 / math.sqrt(WIDTH)
    assert len(rows) == 3
    assert len({row.sum().item() for row in rows.values()}) == 3
    for path, layer in small.layers.items():
        a, b = stepped[path]
        assert torch.equal(layer.lora_A, torch.cat([a, rows[path]]))
        assert torch.equal(layer.lora_B, torch.cat([b, torch.zeros(WIDTH, 1)], dim=1))
        assert 0.8 * bound < rows[path].abs().max() <= bound


def test_moments_and_averages_of_what_was_there_survive(base: DiffusionModels) -> None:
    small = Small(base, threshold=1.0, interval=1)
    small.step(0, lambda: small.loss(0))
    parameters = [parameter for group in small.optimizer.param_groups for parameter in group["params"]]
    average = MovingAverage(parameters, decay=0.5)
    average.step(parameters)
    shadows = [shadow.clone() for shadow in average.values]
    step = TrainingStep(number=1, num_steps=9, seed=3)
    small.strategy.on_step_start(small.models, step)
    small.loss(1).backward()
    small.optimizer.step()
    before = [{key: value.clone() for key, value in small.optimizer.state[p].items()} for p in parameters]
    change = small.strategy.on_step_end(small.models, step)
    assert change is not None and len(change.grown) == 6
    adopt(change.grown, small.optimizer)
    adopt_average(change.grown, average, parameters)
    after = [parameter for group in small.optimizer.param_groups for parameter in group["params"]]
    assert [id(p) for p in after] == [id(p) for path in small.layers.values() for p in (path.lora_A, path.lora_B)]
    for new, known, shadow, averaged in zip(after, before, shadows, average.values, strict=True):
        rows, columns = shadow.shape
        state = small.optimizer.state[new]
        assert state["step"] == known["step"]
        for key in ("exp_avg", "exp_avg_sq"):
            assert known[key].abs().sum() > 0
            assert torch.equal(state[key][:rows, :columns], known[key])
        assert state["exp_avg"].count_nonzero() == known["exp_avg"].count_nonzero()
        squares = state["exp_avg_sq"].clone()
        squares[:rows, :columns] = known["exp_avg_sq"].mean()
        torch.testing.assert_close(squares, known["exp_avg_sq"].mean().expand_as(squares))
        assert torch.equal(averaged[:rows, :columns], shadow)
        fresh = torch.cat([averaged[rows:].flatten(), averaged[:, columns:].flatten()])
        assert torch.equal(fresh, torch.cat([new[rows:].flatten(), new[:, columns:].flatten()]))


def test_accumulated_gradients_decide_as_one_batch_does(base: DiffusionModels) -> None:
    small = Small(base, threshold=1.0, interval=1)
    small.step(0, lambda: small.loss(0))
    x = inputs(1, 12)
    measured = []
    for parts in (1, 3):
        probe = copy.deepcopy(small)
        probe.strategy.on_step_start(probe.models, TrainingStep(number=1, num_steps=9, seed=3))
        for part in x.chunk(parts):
            (probe.models.unet(part).sin().mean() / parts).backward()
        measured.append(ratios(probe))
    assert measured[1] == pytest.approx(measured[0], rel=1e-5)


@pytest.mark.parametrize("factor", [0.0, math.inf, math.nan])
def test_a_layer_without_a_sound_gradient_does_not_grow(base: DiffusionModels, factor: float) -> None:
    small = Small(base, threshold=1.0, interval=1)
    step = TrainingStep(number=1, num_steps=9, seed=3)
    small.strategy.on_step_start(small.models, step)
    (factor * small.loss(0)).backward()
    small.strategy.on_gradients(small.models, lambda tensor: tensor)
    assert small.strategy.on_step_end(small.models, step) is None
    assert small.ranks() == [1, 1, 1]


def test_workers_agree_on_the_mean_of_their_gradients(base: DiffusionModels) -> None:
    """Two workers whose gradients by the column cancel have seen no use of it."""
    small = Small(base, threshold=1.001, interval=1)
    small.strategy.on_step_start(small.models, TrainingStep(number=1, num_steps=9, seed=3))
    small.loss(0).backward()
    small.strategy.on_gradients(small.models, lambda tensor: tensor + -tensor)
    assert all(layer.candidate is None for layer in small.layers.values())


def test_tests_come_at_the_interval_and_not_at_the_ends(base: DiffusionModels) -> None:
    small = Small(base, threshold=1.0, interval=3, initial_rank=2, max_rank=4)
    grew = [number for number in range(13) if small.step(number, lambda: small.loss(0), num_steps=13)]
    assert grew == [3, 6] and small.ranks() == [4, 4, 4]
    small = Small(base, threshold=1.0, interval=3)
    assert [number for number in range(13) if small.step(number, lambda: small.loss(0), num_steps=13)] == [3, 6, 9]


def test_without_growth_it_is_lora(base: DiffusionModels) -> None:
    losses = []
    for name, hyperparameters in (
        ("selora", {"initial_rank": 2, "threshold": 1e9, "interval": 1}),
        ("lora", {"rank": 2}),
    ):
        torch.manual_seed(0)
        models, strategy = copy.copy(base), make_strategy(name, {**hyperparameters, "alpha": 6.0})
        models.unet = Projections()
        strategy.attach(models)
        optimizer = torch.optim.AdamW(strategy.param_groups(models, 1e-2))
        for number in range(5):
            strategy.on_step_start(models, TrainingStep(number=number, num_steps=9, seed=3))
            loss = (models.unet(inputs(number)) - 1).square().mean()
            loss.backward()
            strategy.on_gradients(models, lambda tensor: tensor)
            optimizer.step()
            assert strategy.on_step_end(models, TrainingStep(number=number, num_steps=9, seed=3)) is None
            optimizer.zero_grad()
            losses.append(loss.item())
    assert losses[:5] == losses[5:]


def learn(base: DiffusionModels, *, off: float, noise: float, **hyperparameters: Any) -> tuple[list[int], float]:
    """Learn a teacher whose query alone differs from the base, by rank 3.

    Args:
        off: Size of the columns of B with which key and value start; they unlearn it within their rank.
        noise: Standard deviation of what is added to the teacher's answers.

    Returns:
        Ranks of query, key and value, and the norm of what is left of the query's update, whose own norm is sqrt(3).
    """
    torch.manual_seed(0)
    small = Small(base, interval=40, **hyperparameters)
    teacher = Projections()
    with torch.no_grad():
        for path, layer in small.layers.items():
            teacher.get_submodule(path.removeprefix("unet.")).weight.copy_(layer.base.weight)  # type: ignore[operator]
            if "to_q" not in path:
                nn.init.normal_(layer.lora_B, std=off)
        left, right = (torch.linalg.qr(torch.randn(WIDTH, TRUE_RANK))[0] for _ in range(2))
        teacher.to_q.weight += left @ right.T

    def loss() -> Tensor:
        x = torch.randn(64, WIDTH)
        wanted = teacher(x)
        answer: Tensor = small.models.unet(x) - wanted - noise * torch.randn_like(wanted)
        return answer.square().mean()

    for number in range(800):
        small.step(number, loss)
    query = small.layers["unet.to_q"]
    return small.ranks(), (query.weight() - teacher.to_q.weight).norm().item()


@pytest.mark.slow
@pytest.mark.parametrize("hyperparameters", [{"alpha": 1.0}, {"alpha": 8.0}, {"alpha": 1.0, "threshold": 1.1}])
def test_ranks_grow_to_the_true_rank_where_it_is_and_not_elsewhere(
    base: DiffusionModels, hyperparameters: dict[str, Any]
) -> None:
    ranks, error = learn(base, off=0.5, noise=0.0, **hyperparameters)
    assert TRUE_RANK <= ranks[0] <= TRUE_RANK + 2
    assert max(ranks[1:]) <= 2
    assert error < 0.05


@pytest.mark.slow
def test_noise_makes_layers_grow_that_have_nothing_to_learn(base: DiffusionModels) -> None:
    """What the published rule does, and its docstring says: a ratio does not know how small both gradients are."""
    ranks, _ = learn(base, off=0.0, noise=0.3, alpha=1.0)
    assert ranks[0] <= TRUE_RANK < min(ranks[1:])


def tuned(base: DiffusionModels, dataset: PreparedDataset, **settings: Any) -> tuple[FineTuning, list[EpochReport]]:
    """The trainer itself, on the mini base: six steps, tested after the second and the fourth."""
    models, strategy = base.fresh(), make_strategy("selora", {"interval": 2, "threshold": 1.0})
    torch.manual_seed(0)
    strategy.attach(models)
    config = TrainingConfig(num_epochs=2, warmup_fraction=0.0, **settings)
    feeder = BatchFeeder(
        models=models,
        data=dataset.split("train"),
        data_key="phantom-train",
        trained=strategy.trains,
        cache_folder=None,
        caption_dropout=0.0,
    )
    tuning = FineTuning(
        models,
        strategy,
        feeder=feeder,
        plan=BatchPlan(num_images=24, batch_size=8, seed=3),
        lr=1e-3,
        config=config,
        accelerator=new_accelerator("no"),
    )
    reports: list[EpochReport] = []
    tuning.run(reports.append)
    return tuning, reports


@pytest.mark.slow
def test_the_trainer_follows_the_growth(base: DiffusionModels, dataset: PreparedDataset) -> None:
    tuning, reports = tuned(base, dataset, micro_batch=4, ema_decay=0.5)
    assert [entry["step"] for entry in tuning.rank_history] == [0, 3, 5]
    assert [set(entry["ranks"].values()) for entry in tuning.rank_history] == [{1}, {2}, {3}]
    once = reports[0].trainable_parameters
    assert 2 * reports[1].trainable_parameters == 3 * once == 6 * sum(p.numel() // 3 for p in tuning._parameters)
    for layer in tuning.strategy.layers(tuning.models).values():  # type: ignore[attr-defined]
        assert layer.lora_B[:, 1].abs().sum() > 0  # what was kept first has trained
    assert math.isfinite(reports[-1].loss)


@pytest.mark.parametrize(
    ("hyperparameters", "message"),
    [
        ({"initial_rank": 0}, "`initial_rank` must be a whole number, at least 1, but got 0"),
        ({"interval": 0}, "`interval` must be a whole number, at least 1, but got 0. Try 40."),
        ({"threshold": 0.9}, "`threshold` must be at least 1, but got 0.9"),
        ({"threshold": math.nan}, "`threshold` must be a positive number, but got nan"),
        ({"initial_rank": 4, "max_rank": 2}, "`max_rank` must be at least `initial_rank`, 4, but got 2"),
        ({"alpha": 0}, "`alpha` must be a positive number, but got 0"),
        ({"rank": 2}, "`hyperparameter of selora` must be a known name, but got 'rank'. Did you mean"),
    ],
)
def test_wrong_hyperparameters_are_answered(hyperparameters: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError) as answer:
        make_strategy("selora", hyperparameters)
    assert message in str(answer.value)

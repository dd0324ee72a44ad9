"""The plan of a sweep: operations as counted by hand, and what the numbers of epochs, films and rungs make of them."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from rich.console import Console
from torch import nn

from sweep.config import SweepConfig
from sweep.loading import load_config
from sweep.search.forecast import Workload, forecast, workload
from sweep.search.forecast_words import print_plan, probed_tflops
from trainables.base_models.shapes import base_on_meta
from trainables.strategies.operations import operations_per_film

FILMS = Workload(num_train=100, num_held_out={"Edema": 6, "No Finding": 10})


def config_of(*overrides: str) -> SweepConfig:
    fixed = ("search.strategies=[bitfit]", "training.num_epochs=9")
    return load_config("demo", None, [*fixed, *overrides])


def test_films_of_sd15_cost_what_the_graph_of_the_engine_was_counted_to() -> None:
    models = base_on_meta("sd15")
    counted = operations_per_film(models, num_steps=25, guidance_scale=7.5)
    assert counted / 1e12 == pytest.approx(
        42.67, rel=2e-3
    )  # of the U-Net and the decoder, counted apart from this code


def test_each_step_costs_two_passes_with_guidance_and_one_without() -> None:
    models = base_on_meta("mini")
    guided = [operations_per_film(models, num_steps=steps, guidance_scale=3.0) for steps in (1, 2, 5)]
    plain = [operations_per_film(models, num_steps=steps, guidance_scale=1.0) for steps in (1, 2)]
    assert guided[2] - guided[1] == 3 * (guided[1] - guided[0])
    assert guided[1] - guided[0] == 2 * (plain[1] - plain[0])


def test_a_step_is_counted_as_its_convolutions_and_products_are_by_hand() -> None:
    models = base_on_meta("mini")
    steps = [operations_per_film(models, num_steps=steps, guidance_scale=1.0) for steps in (1, 2)]
    by_hand = 0

    def count(module: nn.Module, inputs: tuple[torch.Tensor, ...], output: torch.Tensor) -> None:
        nonlocal by_hand
        weight: torch.Tensor = module.weight  # type: ignore[assignment]
        by_hand += 2 * output.numel() * weight[0].numel()

    for module in models.unet.modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            module.register_forward_hook(count)
    size = models.unet.config.sample_size  # type: ignore[attr-defined]
    width = models.unet.config.cross_attention_dim  # type: ignore[attr-defined]
    states = torch.empty(1, models.tokenizer.model_max_length, width, device="meta")
    models.unet(torch.empty(1, 4, size, size, device="meta"), torch.zeros(1, device="meta"), states)
    attention = (steps[1] - steps[0]) - by_hand  # products of queries, keys and values have no module
    assert 0 < attention < 0.1 * by_hand


def test_a_sweep_without_stops_costs_its_trials_times_one() -> None:
    found = forecast(config_of("search.scheduler=none", "search.num_trials=5"), FILMS)
    (one,) = found.strategies
    assert one.trainable_parameters[0] == one.trainable_parameters[1]
    assert found.training == pytest.approx(tuple(each * 9 * 100 for each in one.operations_per_image))
    per_film = operations_per_film(base_on_meta("mini"), num_steps=8, guidance_scale=1.0)
    assert found.evaluation == 16 * per_film  # 6 of Edema, 10 of the most 16 of No Finding
    assert found.operations()[1] == pytest.approx(5 * (found.training[1] + 16 * per_film))
    assert found.hours(2.0)[1] == pytest.approx(found.operations()[1] / 2e12 / 3600)


def test_stops_at_the_first_rung_leave_a_ninth_of_the_training_of_all_but_one() -> None:
    found = forecast(config_of("search.num_trials=10"), FILMS)
    assert (found.stopped, found.num_whole) == (1 / 9, 1)
    evaluations = found.evaluation + 9 * found.stopped_evaluation
    assert found.operations()[0] - evaluations == pytest.approx(2 * found.training[0])  # 1 + 9 x 1/9


def test_films_of_the_phantom_are_counted_without_drawing_them() -> None:
    films = workload(config_of("data.num_patients=400"))
    assert films is not None
    assert films.num_train == 533  # as many as the demo trains on
    assert set(films.num_held_out.values()) == {16}


def test_a_plan_says_what_runs_how_long_and_when_it_ends(tmp_path: Path) -> None:
    with (tmp_path / "said").open("w") as file:
        print_plan(config_of("search.stop.hours=2", "search.num_trials=5"), Console(file=file, width=200), 0.001)
    said = (tmp_path / "said").read_text()
    for words in ("5 by tpe", "at most 9 epochs of 533 films", "hours of a worker at 0.001 TFLOP/s (as given)"):
        assert words in said
    assert "hypervolume may stop trials after 1 or 3 epochs" in said and "hours=2" in said


def test_a_plan_of_films_that_are_not_there_says_what_each_strategy_costs(tmp_path: Path) -> None:
    config = config_of("data.source=prepared", f"data.path={tmp_path / 'gone'}")
    with (tmp_path / "said").open("w") as file:
        print_plan(config, Console(file=file, width=300), None)
    said = (tmp_path / "said").read_text()
    assert "bitfit" in said and "MFLOP" in said and "The films are not there yet" in said


def test_a_machine_that_computes_is_probed() -> None:
    assert 1e-5 < probed_tflops(1) < 100

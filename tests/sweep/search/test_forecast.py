"""The plan of a sweep: operations as counted by hand, and what the numbers of epochs, films and rungs make of them."""

from __future__ import annotations

import re
import shutil
from dataclasses import replace
from functools import cache
from pathlib import Path

import pytest
import torch
from rich.console import Console
from torch import nn

from analysis.front.pareto import Objective
from sweep.config import SweepConfig
from sweep.loading import load_config
from sweep.presets import PRESETS
from sweep.presets.expected_films import EXPECTED
from sweep.records.tables import Past
from sweep.search.forecast import TERA, Forecast, Workload, _shapes_of, forecast, workload
from sweep.search.forecast_words import _costs, print_plan, probed_tflops
from sweep.search.stopping import RuleStopping
from sweep.search.stopping_rules import by_first_objective
from sweep.trials.ends import TrialEnd
from sweep.trials.suggestions import Suggestion
from trainables.base_models.models import MINI_FOLDER
from trainables.base_models.shapes import base_on_meta
from trainables.strategies.operations import operations_per_film

FILMS = Workload(
    num_train=100, num_held_out={"Edema": 6, "No Finding": 10}, conditions=("Edema", "Fracture", "No Finding")
)


HOUR = 3600 * TERA


def config_of(*overrides: str) -> SweepConfig:
    fixed = ("search.strategies=[bitfit]", "training.num_epochs=9")
    return load_config("demo", None, [*fixed, *overrides])


@cache
def of_one_trial() -> Forecast:
    return forecast(config_of("search.scheduler=none", "search.num_trials=1"), FILMS)


@pytest.mark.slow
def test_films_of_sd15_cost_what_the_graph_of_the_engine_was_counted_to() -> None:
    models = base_on_meta("sd15")
    counted = operations_per_film(models, guidance_scale=7.5).in_steps(25)
    assert counted / 1e12 == pytest.approx(
        42.67, rel=2e-3
    )  # of the U-Net and the decoder, counted apart from this code


@pytest.mark.slow
def test_films_of_twice_the_side_have_four_times_the_latents_and_more_attention() -> None:
    options = ("search.scheduler=none", "search.num_trials=1")
    small, large = (forecast(config_of(*options, *more), FILMS) for more in ((), ("resolution_px=128",)))
    assert small.strategies[0].trainable_parameters == large.strategies[0].trainable_parameters
    assert 3.9 < large.strategies[0].operations_per_image[0] / small.strategies[0].operations_per_image[0] < 16
    assert 3.9 < large.evaluation[0] / small.evaluation[0] < 16


@pytest.mark.slow
def test_each_step_costs_two_passes_with_guidance_and_one_without() -> None:
    models = base_on_meta("mini")
    guided, plain = (operations_per_film(models, guidance_scale=scale) for scale in (3.0, 1.0))
    assert guided.in_steps(5) - guided.in_steps(2) == 3 * guided.each_step
    assert (
        guided.each_step == 2 * plain.each_step and plain.once < guided.once < 2 * plain.once
    )  # films are decoded once


@pytest.mark.slow
def test_a_step_is_counted_as_its_convolutions_and_products_are_by_hand() -> None:
    models = base_on_meta("mini")
    each_step = operations_per_film(models, guidance_scale=1.0).each_step
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
    attention = each_step - by_hand  # products of queries, keys and values have no module
    assert 0 < attention < 0.1 * by_hand


@pytest.mark.slow
def test_a_sweep_without_stops_costs_its_trials_times_one() -> None:
    prediction = forecast(config_of("search.scheduler=none", "search.num_trials=5"), FILMS)
    (costs,) = prediction.strategies
    assert costs.trainable_parameters[0] == costs.trainable_parameters[1]
    assert prediction.training == pytest.approx(tuple(each * 9 * 100 for each in costs.operations_per_image))
    per_film = operations_per_film(base_on_meta("mini"), guidance_scale=1.0).in_steps(8)
    assert prediction.evaluation == (16 * per_film, 16 * per_film)  # 6 of Edema, 10 of the most 16 of No Finding
    assert prediction.operations()[1] == pytest.approx(5 * (prediction.training[1] + 16 * per_film))
    assert prediction.hours(2.0)[1] == pytest.approx(prediction.operations()[1] / 2e12 / 3600)


@pytest.mark.slow
def test_what_is_left_costs_what_follows_the_trials_that_have_ended() -> None:
    """Of four trials that no rung compares two are left, once two have completed; a stopped one compared none."""
    config = config_of("search.num_trials=10", "search.scheduler=asha")
    whole, left = (forecast(config, FILMS, past) for past in (Past(), Past(num_ended=3, num_completed=2)))
    assert (whole.num_trials, whole.num_whole, left.num_trials, left.num_whole) == (10, 4, 7, 2)
    assert left.operations()[1] == pytest.approx(0.7 * whole.operations()[1])
    assert forecast(config, FILMS, Past(num_ended=12, num_completed=12)).operations() == (0, 0)


@pytest.mark.slow
def test_a_plan_says_what_has_ended(tmp_path: Path) -> None:
    with (tmp_path / "said").open("w") as file:
        print_plan(config_of("search.num_trials=5"), Console(file=file, width=200), 1.0, Past(num_ended=2))
    said = (tmp_path / "said").read_text()
    assert "2 have ended, and what follows is of the other 3" in said and "Operations" in said


@pytest.mark.parametrize(("num_trials", "floor"), [(10, 1), (10, 2), (10, 9), (3, 1)])
def test_the_least_is_what_the_trial_scheduler_leaves_where_each_trial_is_worse_than_those_before(
    num_trials: int, floor: int
) -> None:
    config = config_of(
        f"search.num_trials={num_trials}", f"search.rungs.floors.bitfit={floor}", "search.scheduler=asha"
    )
    prediction = forecast(config, FILMS)
    stopping = RuleStopping(by_first_objective, config.search.ladder(9), [Objective("fid_mini", "min")], eta=3)
    epochs = [trained(stopping, f"trial{number}", fid=float(number)) for number in range(num_trials)]
    assert prediction.num_whole == epochs.count(9) or floor == 9
    training = (
        prediction.operations(num_workers=1)[0] - prediction.operations(num_workers=2)[0]
    )  # evaluations are not shared
    assert 2 * training == pytest.approx(prediction.training[0] * sum(epochs) / 9)


def trained(stopping: RuleStopping, trial_id: str, *, fid: float) -> int:
    """For how many of nine epochs the trial scheduler lets a trial train."""
    suggestion = Suggestion(
        trial_id=trial_id, number=0, choice={"strategy": {"name": "bitfit"}}, params={}, distributions={}, rejected=[]
    )
    stopping.on_start(suggestion)
    for epoch in range(8):
        report = {"epoch": epoch, "early_fid_mini": fid}
        end = stopping.decide(trial_id, report)
        stopping.on_report(trial_id, report)
        if end is not None:
            stopping.on_end(trial_id, end)
            return epoch + 1
    stopping.on_end(trial_id, TrialEnd.completed())
    return 9


@pytest.mark.slow
def test_with_fewer_trials_than_strategies_only_the_first_are_counted() -> None:
    among = forecast(
        config_of("search.scheduler=none", "search.strategies=[bitfit,unet]", "search.num_trials=1"), FILMS
    )
    assert len(among.strategies) == 2
    assert among.operations() == of_one_trial().operations()
    assert among.adapter_mib == of_one_trial().adapter_mib


@pytest.mark.slow
def test_tokens_are_counted_for_all_conditions_of_the_data_also_those_that_are_not_scored() -> None:
    (costs,) = forecast(config_of("search.strategies=[textual_inversion]"), FILMS).strategies
    width = base_on_meta("mini").text_encoder.config.hidden_size
    assert costs.trainable_parameters[0] == len(FILMS.conditions) * width


@pytest.mark.slow
@pytest.mark.parametrize(
    ("ranks", "least", "most"),
    [
        (None, 2, 4),  # of 8, 4, 2, 1 in any case the ends
        ("[1, 2, 4]", 4, 4),  # they are named
    ],
)
def test_each_cut_of_a_training_that_is_scored_is_evaluated_and_kept(ranks: str | None, least: int, most: int) -> None:
    named = () if ranks is None else (f"search.hyperparameters.dylora.evaluated_ranks={ranks}",)
    fixed = ("search.strategies=[dylora]", "search.scheduler=none", "search.hyperparameters.dylora.rank=8")
    prediction = forecast(config_of(*fixed, *named, "search.num_trials=1"), FILMS)
    fewest, all_ = of_one_trial().evaluation
    assert prediction.evaluation == (least * fewest, most * all_)
    assert prediction.adapter_mib == most * prediction.strategies[0].adapter_mib[1]


def test_a_condition_that_the_phantom_does_not_have_is_refused_before_it_is_drawn() -> None:
    with pytest.raises(ValueError, match=r"data\.conditions.*Oedema"):
        workload(config_of("data.conditions=[Oedema]"))


def test_shapes_of_a_folder_need_no_weights(tmp_path: Path) -> None:
    bare = shutil.copytree(MINI_FOLDER, tmp_path / "bare", ignore=shutil.ignore_patterns("*.safetensors"))
    assert base_on_meta(_shapes_of(str(bare))).unet.num_parameters() == base_on_meta("mini").unet.num_parameters()


def test_films_of_the_phantom_are_counted_without_drawing_them() -> None:
    films = workload(config_of("data.num_patients=400"))
    assert films is not None
    assert films.num_train == 533  # as many as the demo trains on
    assert set(films.num_held_out.values()) == {16}


@pytest.mark.slow
def test_a_plan_says_what_runs_how_long_and_when_it_ends(tmp_path: Path) -> None:
    asked = (
        "data.num_patients=400",
        "search.scheduler=gain",
        "search.stop.hours=2",
        "search.num_trials=5",
        "compute.concurrent_trials=8",
    )
    with (tmp_path / "said").open("w") as file:
        print_plan(config_of(*asked), Console(file=file, width=200), 0.001)
    said = (tmp_path / "said").read_text()
    for words in (
        "5 by front, 5 at once",
        "at most 9 epochs of 533 films",
        "hours of a worker at 0.001 TFLOP/s of a worker (as given)",
    ):
        assert words in said
    assert "gain may stop trials after 1 or 3 epochs, but one of each strategy and the first 4 of all" in said
    assert "hours=2" in said


@pytest.mark.parametrize(
    ("compute", "gpu_hours", "in_all"),
    [  # three whole and two stopped ones at their least, five whole ones at their most
        (("compute.gpus_per_worker=1", "compute.concurrent_trials=1"), "48 to 220", "48 to 220"),
        (("compute.gpus_per_worker=0.25", "compute.concurrent_trials=4"), "12 to 55", "12 to 55"),
        (("compute.gpus_per_worker=1", "compute.concurrent_trials=8"), "48 to 220", "9.6 to 44"),  # five at once
        (
            ("compute.gpus_per_worker=1", "compute.concurrent_trials=1", "compute.workers_per_trial=4"),
            "48 to 220",
            "18 to 70",
        ),
    ],
)
def test_hours_of_gpus_are_those_of_workers_times_their_share_and_workers_share_no_evaluation(
    compute: tuple[str, ...], gpu_hours: str, in_all: str
) -> None:
    prediction = Forecast(
        strategies=(),
        training=(10.0 * HOUR, 40.0 * HOUR),
        evaluation=(2.0 * HOUR, 4.0 * HOUR),
        adapter_mib=1.0,
        stopped=(5.0 * HOUR, 1.0 * HOUR),
        num_trials=5,
        num_whole=3,
    )
    said = "".join(_costs(prediction, config_of(*compute, "search.num_trials=5"), 1.0, "as given"))
    assert f"Time        {gpu_hours} GPU-hours at 1 TFLOP/s of a worker (as given); {in_all} h in all" in said


@pytest.mark.parametrize(
    ("overrides", "gib"),
    [
        (("compute.concurrent_trials=1", "training.ema_decay=null"), 2 * 3),
        (("compute.concurrent_trials=1", "training.ema_decay=0.99"), 2 * 4),
        (("compute.concurrent_trials=9", "training.ema_decay=null"), 5 * 2 * 3),  # five trials are five at once
    ],
)
def test_checkpoints_of_trials_at_once_are_counted_by_hand(overrides: tuple[str, ...], gib: int) -> None:
    """Of 2^28 weights of 4 bytes each copy is a GiB: weights, two moments and an average; old and new for a moment."""
    few, many = (replace(of_one_trial().strategies[0], trainable_parameters=(1.0, most)) for most in (9.0, 2.0**28))
    prediction = replace(of_one_trial(), strategies=(many, few), num_trials=5)
    disk = _costs(prediction, config_of(*overrides, "search.num_trials=5"), 1.0, "as given")[-1]
    assert disk.endswith(f"while they run about {gib} GiB of checkpoints")


@pytest.mark.slow
def test_a_plan_of_films_that_are_not_there_says_what_each_strategy_costs(tmp_path: Path) -> None:
    config = config_of("data.source=prepared", f"data.path={tmp_path / 'gone'}")
    with (tmp_path / "said").open("w") as file:
        print_plan(config, Console(file=file, width=300), None)
    said = (tmp_path / "said").read_text()
    assert "bitfit" in said and "MFLOP" in said and "The films are not there yet" in said


@pytest.mark.parametrize("name", EXPECTED)
def test_the_films_of_a_study_are_counted_before_they_are_prepared(name: str, tmp_path: Path) -> None:
    config = load_config(name, None, [f"data.path={tmp_path / 'gone'}"])
    films = workload(config)
    assert films is not None and films.expected and films.num_train == EXPECTED[name].num_train > 50
    most = config.evaluation.images_per_condition
    assert films.num_held_out == {key: min(most, count) for key, count in EXPECTED[name].num_held_out.items()}


def test_all_studies_have_a_plan() -> None:
    assert set(EXPECTED) == {name for name, preset in PRESETS.items() if preset().search.sampler == "grid"}


@pytest.mark.slow
def test_a_study_has_a_plan_with_gpu_hours_before_its_films_are_prepared(tmp_path: Path) -> None:
    """By hand: each strategy once, its epochs of the films expected, and its evaluations, at the rate that is given."""
    small = ("base=mini", "data.resolution_px=64", "evaluation.num_steps=1", "evaluation.guidance_scale=1")
    config = load_config("chexgenbench", None, [f"data.path={tmp_path / 'gone'}", *small])
    films = workload(config)
    assert films is not None
    with (tmp_path / "said").open("w") as file:
        print_plan(config, Console(file=file, width=400), 1e-3)
    said = " ".join((tmp_path / "said").read_text().split())
    assert f"The films are not there yet: prepare '{tmp_path / 'gone'}'. What follows counts {films.expected}." in said
    prediction = forecast(config, films)
    assert prediction.num_whole == prediction.num_trials == len(config.search.candidates())
    images = films.num_train * config.training.num_epochs
    training = sum(costs.operations_per_image[0] for costs in prediction.strategies) * images
    by_hand = training + prediction.num_trials * prediction.evaluation[0]
    hours = re.search(r"([\d,.]+)(?: to [\d,.]+)? GPU-hours at 0\.001 TFLOP/s of a worker", said)
    assert hours is not None and float(hours[1].replace(",", "")) == pytest.approx(by_hand / 1e9 / 3600, rel=0.06)


def test_conditions_of_a_study_that_are_chosen_are_those_that_are_counted(tmp_path: Path) -> None:
    given = (
        "data.conditions=[Edema, No Finding]",
        "evaluation.images_per_condition=1000",
        f"data.path={tmp_path / 'gone'}",
    )
    films = workload(load_config("pixels_under_pressure", None, given))
    assert films is not None and films.num_held_out == {"Edema": 1000, "No Finding": 722}


@pytest.mark.parametrize(
    ("budget", "images"),
    [((), (900, 900)), (("search.budget.images=700",), (700, 700)), (("search.budget.steps=50",), (800, 1600))],
)
def test_training_costs_the_images_that_the_budget_lets_a_trial_see(
    budget: tuple[str, ...], images: tuple[int, int]
) -> None:
    """Batches are of 16 or 32."""
    config = config_of("search.scheduler=none", "search.num_trials=1", *budget)
    prediction, (costs,) = forecast(config, FILMS), of_one_trial().strategies
    assert prediction.training == pytest.approx(
        tuple(each * count for each, count in zip(costs.operations_per_image, images, strict=True))
    )


def test_a_budget_of_seconds_is_the_hours_of_training_whatever_the_rate(tmp_path: Path) -> None:
    """Of ten trials four are whole; the others may be stopped after one epoch of nine."""
    config = config_of("search.num_trials=10", "search.budget.seconds=360", "objectives=[fid,vendi]")
    prediction = forecast(config, FILMS)
    assert prediction.training == (0.0, 0.0) and prediction.operations()[1] > 0
    assert prediction.hours(1e12) == pytest.approx((0.1 * (4 + 6 / 9), 0.1 * 10), rel=1e-6)
    with (tmp_path / "said").open("w") as file:
        print_plan(config, Console(file=file, width=300), 1.0)
    assert "each at most 360 seconds of training in 9 parts, from " in (tmp_path / "said").read_text()


@pytest.mark.slow
def test_a_machine_that_computes_is_probed() -> None:
    assert 1e-5 < probed_tflops(1) < 100

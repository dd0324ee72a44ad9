"""What every search space keeps."""

from __future__ import annotations

import pickle
from collections.abc import Iterator
from dataclasses import replace

import optuna
import pytest

from search_spaces import SEARCH_SPACES, SearchSpace, is_known_to, known_to, published, strategies_of
from search_spaces.ranges import RANGES
from search_spaces.suggest import searched
from trainables.base_models.text_encoders import HUB_ENCODERS
from trainables.strategies import COMBINATIONS, STRATEGIES, make_strategy


@pytest.fixture(params=SEARCH_SPACES.values(), ids=SEARCH_SPACES)
def space(request: pytest.FixtureRequest) -> SearchSpace:
    """Each space in turn."""
    entry: SearchSpace = request.param
    return entry


def sampled(seed: int, number: int = 200) -> list[optuna.Trial]:
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=seed))
    return [study.ask() for _ in range(number)]


def test_it_stands_in_the_table_by_its_functions_name(space: SearchSpace) -> None:
    """By that name its ranges are found."""
    assert SEARCH_SPACES[space.__name__] is space


def test_every_strategy_has_ranges() -> None:
    lacking = [name for name in STRATEGIES if name not in RANGES]
    assert not lacking, (
        f"No search space can suggest {lacking}. Add an entry for each to RANGES in search_spaces/ranges.py."
    )
    astray = {
        name: [*ranges.lr] for name, ranges in RANGES.items() if not ranges.lr or set(ranges.lr) - set(SEARCH_SPACES)
    }
    assert not astray, f"`lr` of RANGES must have ranges for some of {[*SEARCH_SPACES]}, but got {astray}."


def test_combinations_are_searched_where_a_space_has_all_their_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("unet", "lora", "text_encoder"):
        monkeypatch.setitem(RANGES, name, replace(RANGES[name], lr={"small": (1e-4, 1e-3)}))
    monkeypatch.setitem(RANGES, "vae", replace(RANGES["vae"], lr={"small": (1e-4, 1e-3)}, on_request=True))
    assert searched("small") == ("unet", "lora", "text_encoder", "unet+text_encoder", "lora+text_encoder")


def test_plain_pickle_carries_it(space: SearchSpace) -> None:
    assert pickle.loads(pickle.dumps(space)) is space


def test_it_is_a_function_of_the_trial_alone(space: SearchSpace) -> None:
    suggested = [space(trial) for trial in sampled(seed=3)]
    assert suggested == [space(trial) for trial in sampled(seed=3)]
    assert suggested != [space(trial) for trial in sampled(seed=4)]


def test_every_strategy_is_suggested_and_takes_its_fields(space: SearchSpace) -> None:
    suggested = [space(trial)["strategy"] for trial in sampled(seed=0)]
    assert (
        {fields["name"] for fields in suggested} == set(strategies_of(space)) <= STRATEGIES.keys() | COMBINATIONS.keys()
    )
    for fields in suggested:
        hyperparameters = {name: value for name, value in fields.items() if name != "name"}
        assert hyperparameters.items() <= make_strategy(fields["name"], hyperparameters).hyperparameters().items()


def test_the_choice_of_strategies_can_be_narrowed(space: SearchSpace) -> None:
    for name in strategies_of(space):
        trial = sampled(seed=1, number=1)[0]
        assert space(trial, strategies=(name,))["strategy"]["name"] == name


def test_strategies_that_need_downloads_are_suggested_only_where_they_are_named() -> None:
    (name,) = set(known_to("core")) - set(strategies_of(SEARCH_SPACES["core"]))
    suggested = [SEARCH_SPACES["core"](trial, strategies=(name,))["strategy"] for trial in sampled(seed=2, number=20)]
    assert {fields["train_encoder"] for fields in suggested} == {False, True}
    assert {fields["encoder"] for fields in suggested} == set(HUB_ENCODERS)
    assert all(make_strategy(name, {"encoder": fields["encoder"]}).name == "text_encoder_swap" for fields in suggested)
    assert known_to("mini") == strategies_of(SEARCH_SPACES["mini"])


@pytest.mark.parametrize("name", ["text_encoder_swap+textual_inversion", "text_encoder_swap+text_encoder"])
def test_a_swapped_encoder_does_not_train_twice(name: str) -> None:
    for trial in sampled(seed=9, number=20):
        hyperparameters = dict(SEARCH_SPACES["core"](trial, strategies=(name,))["strategy"])
        assert make_strategy(hyperparameters.pop("name"), hyperparameters).trains == ("unet", "text_encoder")


def test_each_strategys_parameters_carry_its_name(space: SearchSpace) -> None:
    for trial in sampled(seed=5):
        name = space(trial)["strategy"]["name"]
        parameters = set(trial.params) - {"strategy", "batch_size"}
        assert f"{name}/lr" in parameters
        assert all(parameter.startswith(f"{name}/") for parameter in parameters)


def test_what_is_shared_is_positive(space: SearchSpace) -> None:
    for trial in sampled(seed=6):
        choice = space(trial)
        assert choice.keys() == {"strategy", "lr", "batch_size"}
        assert choice["lr"] > 0
        assert choice["batch_size"] >= 1


@pytest.mark.parametrize(
    "name", ["dora+text_encoder", "selora+vae", "lora+textual_inversion", "adalora+vae+text_encoder"]
)
def test_any_combination_of_what_a_space_knows_is_suggested(space: SearchSpace, name: str) -> None:
    assert all(is_known_to(each, name) for each in SEARCH_SPACES)
    for trial in sampled(seed=2, number=20):
        choice = space(trial, strategies=(name,), fixed={name: {"vae.lr_ratio": 0.5}} if "vae" in name else {})
        hyperparameters = {key: value for key, value in choice["strategy"].items() if key != "name"}
        strategy = make_strategy(name, hyperparameters)
        assert hyperparameters.items() <= strategy.hyperparameters().items()
        assert "vae" not in name or strategy.hyperparameters()["vae.lr_ratio"] == 0.5


COMBINED = (
    *(name for name in strategies_of(SEARCH_SPACES["core"]) if name in COMBINATIONS),
    "text_encoder+lora",
    "vae+unet",
    "lora+textual_inversion",
    "textual_inversion+lora",
    "adalora+vae+text_encoder",
)


def effective_rates(space: SearchSpace, name: str, fixed: dict[str, float]) -> Iterator[dict[str, float]]:
    """What each part trains at, by part, of combinations that the space suggests."""
    for trial in sampled(seed=7, number=60):
        choice = space(trial, strategies=(name,), fixed={name: fixed})
        strategy = make_strategy(name, {key: value for key, value in choice["strategy"].items() if key != "name"})
        ratios = {
            key.removesuffix(".lr_ratio"): value for key, value in strategy.hyperparameters().items() if "lr_r" in key
        }
        yield {part: choice["lr"] * ratio for part, ratio in ratios.items()}


@pytest.mark.slow
@pytest.mark.parametrize("name", COMBINED)
def test_each_part_of_a_combination_trains_at_rates_of_its_own_range(space: SearchSpace, name: str) -> None:
    drawn = list(effective_rates(space, name, {}))
    for part in drawn[0]:
        low, high = RANGES[part].lr[space.__name__]
        rates = [rates[part] for rates in drawn]
        assert low * (1 - 1e-9) <= min(rates) and max(rates) <= high * (1 + 1e-9)
        assert max(rates) / min(rates) > (high / low) ** 0.8


@pytest.mark.parametrize("part", ["text_encoder", "lora"])
def test_a_fixed_ratio_of_learning_rates_is_kept(space: SearchSpace, part: str) -> None:
    name = "text_encoder+lora"
    for trial in sampled(seed=8, number=20):
        choice = space(trial, strategies=(name,), fixed={name: {f"{part}.lr_ratio": 0.5}})
        assert choice["strategy"][f"{part}.lr_ratio"] == 0.5
        assert {f"{name}/lr", f"{name}/lora/lr"} & trial.params.keys() == (
            {f"{name}/lr"} if part == "lora" else {f"{name}/lr", f"{name}/lora/lr"}
        )


def test_a_combination_with_an_unknown_part_is_not_known(space: SearchSpace) -> None:
    assert not is_known_to("mini", "lora+loar") and not is_known_to("mini", "loar")


def test_every_rank_fits_what_is_fixed_beside_it(space: SearchSpace) -> None:
    fixed = {"dylora": {"evaluated_ranks": [1, 2, 4, 8]}, "adalora": {"initial_ratio": 1.2}}
    for name in fixed:
        for trial in sampled(seed=2, number=40):
            hyperparameters = dict(space(trial, strategies=(name,), fixed=fixed)["strategy"])
            make_strategy(hyperparameters.pop("name"), hyperparameters)


def test_published_learning_rates_are_asked_for_by_name_and_within_the_ranges() -> None:
    """Enqueued, they are what the space suggests: Optuna passes over a name or a value that it does not draw."""
    known = {name: published(SEARCH_SPACES["core"], name) for name in (*RANGES, "unet+vae", "all")}
    assert known["lora"] == {"lora/lr": 1e-4} and known["unet+vae"] == {"unet+vae/lr": 1e-5} and known["norm"] == {}
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    for name, rates in known.items():
        study.enqueue_trial({"strategy": name, **rates})
        choice = SEARCH_SPACES["core"](study.ask(), strategies=tuple(known))
        assert choice["strategy"]["name"] == name and choice["lr"] == (list(rates.values()) or [choice["lr"]])[0]
    assert not any(published(SEARCH_SPACES["mini"], name) for name in RANGES)

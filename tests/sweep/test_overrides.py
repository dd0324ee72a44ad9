"""--set: texts and paths are taken as they are, numbers as people write them, and every key that exists is reached."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import optuna
import pytest
from hypothesis import given
from hypothesis import strategies as st

from search_spaces import SEARCH_SPACES
from sweep.config import ConfigError, SearchConfig, SweepConfig
from sweep.loading import load_config
from sweep.preflight import check_strategies


def value_of(override: str, *others: str) -> Any:
    """What a key has in the configuration after an override."""
    value: Any = load_config("demo", None, [*others, override])
    for part in override.partition("=")[0].strip().split("."):
        value = value[part] if isinstance(value, dict) else getattr(value, part)
    return value


@pytest.mark.parametrize(
    "text",
    [
        "/data/films #2",
        "0123",
        "1e3",
        "/data/50% x: y",
        "no",
        "2026-01-02",
        " /data/a ",
        "'q'",
        "[a",
        "~/films",
        "*",
        "a=b",
    ],
)
def test_a_path_is_taken_as_it_is(text: str) -> None:
    assert value_of(f"data.path={text}", "data.source=prepared") == Path(text)
    assert value_of(f"evaluation.extractor_weights={text}") == Path(text)


@given(
    st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), min_size=1).filter(
        lambda text: text != "null"
    )
)
def test_any_text_is_the_base_that_it_says(text: str) -> None:
    assert value_of(f"base={text}") == text
    assert value_of(f"compute.address={text}") == text
    fixed = value_of(
        f"search.hyperparameters.text_encoder_swap.encoder={text}",
        "search.strategies=text_encoder_swap",
        "search.space=core",
    )
    assert fixed == text


@pytest.mark.parametrize("key", ["data.path", "compute.address", "evaluation.extractor_weights"])
@pytest.mark.parametrize("text", ["", "null"])
def test_what_may_be_absent_is_taken_away_by_nothing_and_by_null(key: str, text: str) -> None:
    assert value_of(f"{key}={text}", f"{key}=x") is None


@pytest.mark.parametrize("text", ["/data/films", "prepared", "x"])
def test_films_that_nothing_would_read_are_refused(text: str) -> None:
    with pytest.raises(ConfigError, match=f"but got '{text}'. Add --set data.source=prepared"):
        load_config("demo", None, [f"data.path={text}"])


@pytest.mark.parametrize("text", ["[no, 0123, 1e3]", "no, 0123, 1e3", "no,0123,1e3", "['no', \"0123\", 1e3]"])
def test_names_are_words_even_where_yaml_sees_none(text: str) -> None:
    assert value_of(f"data.conditions={text}") == ("no", "0123", "1e3")


def test_a_word_that_is_chosen_from_is_one() -> None:
    assert value_of("training.mixed_precision=no") == "no"
    with pytest.raises(ConfigError, match=r"`data.source` must be 'phantom' or 'prepared', but got 'prepared # mine'"):
        load_config("demo", None, ["data.source=prepared # mine"])


@pytest.mark.parametrize(("text", "workers"), [("2", 2), ("[1, 2]", (1, 2)), ("[1,0_4]", (1, 4))])
def test_workers_are_a_number_or_the_fewest_and_the_most(text: str, workers: object) -> None:
    assert value_of(f"compute.workers_per_trial={text}") == workers
    with pytest.raises(ConfigError, match=r"`compute.workers_per_trial` must be .*, but got \[0, 2\]"):
        load_config("demo", None, ["compute.workers_per_trial=[0, 2]"])


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("1e1", 10), ("1E+2", 100), ("1_000", 1000), ("10", 10), ("0123", 123), ("+7", 7), ("1_0e1", 100), ("12.", 12), ("2e0", 2),
    ],
)  # fmt: skip
def test_counts_are_numbers_as_people_write_them(text: str, number: int) -> None:
    assert value_of(f"search.num_trials={text}") == number
    fixed = value_of(f"search.hyperparameters.lora.alpha={text}")
    assert fixed == number and not isinstance(fixed, bool | str)


@pytest.mark.parametrize(
    ("text", "number"),
    [("1e-3", 1e-3), (".5", 0.5), ("5E-1", 0.5), ("1_000.5", 1000.5), ("1.e-2", 0.01), ("0.0_1", None), ("1e1", 10.0)],
)
def test_numbers_are_those_that_people_write(text: str, number: float | None) -> None:
    if number is None:
        number = float(text)
    assert value_of(f"training.weight_decay={text}") == number


@pytest.mark.parametrize(
    "text", ["1:30", "0x10", "1e", "1,000", "ten", "1__0", "2026-01-02", "9" * 5000, "1e99999", "10%"]
)
def test_what_is_no_number_is_refused_as_it_came(text: str) -> None:
    with pytest.raises(ConfigError, match=r"`search.num_trials` must be .*, but got"):
        load_config("demo", None, [f"search.num_trials={text}"])


@pytest.mark.parametrize("text", ["yes", "no", "true", "False", "on"])
@pytest.mark.parametrize("key", ["seed", "training.num_epochs", "training.micro_batch", "training.ema_decay"])
def test_a_switch_is_no_number(key: str, text: str) -> None:
    with pytest.raises(
        ConfigError, match=rf"`{key}` must be a number, but got (True|False)\. Change it with --set {key}="
    ):
        load_config("demo", None, [f"{key}={text}"])


@pytest.mark.parametrize("text", ["AUTO", "0", "-3", "1.5", "[1]"])
def test_a_key_that_may_be_one_thing_or_another_is_named_once_and_as_it_is_written(text: str) -> None:
    with pytest.raises(ConfigError) as raised:
        load_config("demo", None, [f"training.micro_batch={text}"])
    said = str(raised.value)
    assert said.startswith("`training.micro_batch` must be ") and " or must be 'auto', but got " in said
    assert said.endswith("Change it with --set training.micro_batch=VALUE or in the configuration file.")


def test_a_file_has_the_same_numbers(tmp_path: Path) -> None:
    file = tmp_path / "sweep.yaml"
    file.write_text(
        "search: {num_trials: 1e1, hyperparameters: {lora: {lr: 1e-3, rank: 010}}}\ntraining: {mixed_precision: no}\n"
    )
    config = load_config("demo", file)
    assert config.search.num_trials == 10 and config.training.mixed_precision == "no"
    assert config.search.hyperparameters == {"lora": {"lr": 1e-3, "rank": 10}}


def suggested(name: str, space: str, *overrides: str) -> list[dict[str, Any]]:
    """What a space suggests where these are fixed, after the checks that a sweep makes of them."""
    config = load_config("demo", None, [f"search.strategies={name}", f"search.space={space}", *overrides])
    check_strategies(config)
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    fixed = config.search.hyperparameters
    return [SEARCH_SPACES[space](study.ask(), strategies=(name,), fixed=fixed) for _ in range(8)]


@pytest.mark.parametrize("space", SEARCH_SPACES)
def test_the_learning_rate_and_the_batch_are_reached(space: str) -> None:
    choices = suggested(
        "lora", space, "search.hyperparameters.lora.lr=3e-4", "search.hyperparameters.lora.batch_size=6"
    )
    assert {(choice["lr"], choice["batch_size"]) for choice in choices} == {(3e-4, 6)}
    assert all(choice["strategy"].keys() == {"name", "rank", "alpha"} for choice in choices)
    assert len({choice["strategy"]["rank"] for choice in choices}) > 1


@pytest.mark.slow
@pytest.mark.parametrize("name", ["lora+text_encoder", "text_encoder+lora", "unet+vae"])
def test_each_part_of_a_combination_has_its_own_rate(name: str) -> None:
    first, second = name.split("+")
    for choice in suggested(name, "mini", f"search.hyperparameters.{name}.{second}.lr=1e-4"):
        assert choice["lr"] * choice["strategy"][f"{second}.lr_ratio"] == pytest.approx(1e-4)
    choices = suggested(name, "mini", f"search.hyperparameters.{name}.{first}.lr=2e-3")
    assert {choice["lr"] for choice in choices} == {2e-3}
    assert len({choice["strategy"][f"{second}.lr_ratio"] for choice in choices}) > 1


@pytest.mark.parametrize(
    ("name", "fixed", "message"),
    [
        ("lora", {"lr": "fast"}, "`lr` must be a positive number, but got 'fast'. Try 1e-4."),
        ("lora", {"lr": 0}, "`lr` must be a positive number, but got 0"),
        ("bitfit", {"batch_size": 2.5}, "`batch_size` must be a whole number, at least 1, but got 2.5"),
        ("lora", {"learning_rate": 1}, "must be a known name, but got 'learning_rate'. Choose one of: alpha, batch_size"),
        ("lora+text_encoder", {"lr": 1e-3}, "must be a known name, but got 'lr'. Did you mean 'lora.lr'"),
        ("lora+text_encoder", {"lora.lr": 1e-3, "lora.lr_ratio": 2}, "`lora.lr` must stand without `lora.lr_ratio`, but got both"),
    ],
)  # fmt: skip
def test_a_rate_or_batch_that_cannot_be_is_answered(name: str, fixed: dict[str, Any], message: str) -> None:
    config = SweepConfig(search=SearchConfig(strategies=(name,), hyperparameters={name: fixed}))
    with pytest.raises(ConfigError) as refused:
        check_strategies(config)
    assert str(refused.value).startswith(f"`search.strategies` has {name}: ") and message in str(refused.value)


@pytest.mark.parametrize("key", ["lr", "batch_size", "training.lr", "training.batch_size", "search.lr"])
def test_a_key_that_strategies_have_is_answered_with_it(key: str) -> None:
    with pytest.raises(
        ConfigError,
        match=rf"must be a known name, .* Did you mean search\.hyperparameters\.STRATEGY\.{key.split('.')[-1]}\b",
    ):
        load_config("demo", None, [f"{key}=1"])


def test_a_strategy_without_its_section_is_answered_with_it() -> None:
    with pytest.raises(
        ConfigError, match=r"must be a known name, but got 'lora'\. Did you mean search\.hyperparameters\.lora\?$"
    ):
        load_config("demo", None, ["lora.lr=1e-3"])

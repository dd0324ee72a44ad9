"""Configuration: preset, file, overrides, and answers to what is wrong in them."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from analysis.front.objectives import objective_directions
from sweep.config import ConfigError, SweepConfig
from sweep.loading import load_config, parse_config
from sweep.presets import PRESETS


def test_without_file_and_overrides_the_preset_is_the_configuration() -> None:
    for name, preset in PRESETS.items():
        assert load_config(name) == preset()
        assert preset().preset == name
        assert preset.__doc__


def test_the_presets_compare_four_strategies_and_the_space_has_more() -> None:
    assert {PRESETS[name]().search.strategies for name in ("demo", "nih64", "nih512")} == {
        ("unet", "lora", "dora", "bitfit")
    }
    assert load_config("demo", overrides=["search.strategies=null"]).search.strategies is None
    wider = load_config("demo", overrides=["search.strategies=[difffit, unet+text_encoder]"])
    assert wider.search.strategies == ("difffit", "unet+text_encoder")
    on_request = load_config("demo", overrides=["search.strategies=[text_encoder_swap]", "search.space=core"])
    assert on_request.search.strategies == ("text_encoder_swap",)


def test_overrides_beat_the_file_and_the_file_beats_the_preset(tmp_path: Path) -> None:
    file = tmp_path / "sweep.yaml"
    file.write_text("search: {num_trials: 5}\ntraining: {num_epochs: 7, ema_decay: 0.9}\n")
    config = load_config("demo", file, ["search.num_trials=6", "data.num_patients=50"])
    assert (config.search.num_trials, config.training.num_epochs, config.training.ema_decay) == (6, 7, 0.9)
    assert config.data.num_patients == 50
    assert config.training.weight_decay == PRESETS["demo"]().training.weight_decay


@pytest.mark.parametrize(
    ("override", "section", "name", "expected"),
    [
        ("compute.cpus_per_worker=5e-1", "compute", "cpus_per_worker", 0.5),
        ("training.mixed_precision=no", "training", "mixed_precision", "no"),
        ("training.min_snr_gamma=null", "training", "min_snr_gamma", None),
        ("evaluation.extractor_weights=a/b.pt", "evaluation", "extractor_weights", Path("a/b.pt")),
    ],
)
def test_override_values_are_yaml(override: str, section: str, name: str, expected: object) -> None:
    assert getattr(getattr(load_config("demo", None, [override]), section), name) == expected


@pytest.mark.parametrize(
    "override",
    [
        "search.hyperparameters.lora+text_encoder.lora.rank=4",
        "search.hyperparameters={lora+text_encoder: {lora.rank: 4}}",
    ],
)
def test_hyperparameters_are_given_by_strategy(override: str) -> None:
    config = load_config("demo", None, ["search.strategies=[lora+text_encoder]", override])
    assert config.search.hyperparameters == {"lora+text_encoder": {"lora.rank": 4}}
    again = load_config(
        "demo",
        None,
        [f"search.hyperparameters={config.search.hyperparameters}", "search.strategies=[lora+text_encoder]"],
    )
    assert again.search.hyperparameters == config.search.hyperparameters


@pytest.mark.parametrize("text", ["[fid, vendi]", "fid,vendi", "fid, vendi"])
def test_names_may_be_a_list_or_separated_by_commas(text: str) -> None:
    assert load_config("demo", None, [f"objectives={text}"]).objectives == ("fid", "vendi")


@pytest.mark.parametrize(
    ("override", "message"),
    [
        (
            "num_epoch=3",
            r"`key of the configuration` .* got 'num_epoch'\. Did you mean 'training.num_epochs'\? Valid: ",
        ),
        ("training.num_epoch=3", "but got 'training.num_epoch'. Did you mean 'training.num_epochs'"),
        ("xyzzy=1", "must be a known name, but got 'xyzzy'. Choose one of: base, cache.path, compute.address"),
        (
            "objectives=[fd]",
            "`objective` must be a known name, but got 'fd'. Did you mean 'fid'.*Valid: .*epoch_s, fid",
        ),
        ("search.strategies=[text_encoder_swap]", "`strategy` must be a known name, but got 'text_encoder_swap'"),
        ("search.strategies=[loar]", "`strategy` must be a known name, but got 'loar'. Did you mean 'lora'"),
        (
            "search.hyperparameters.loar.rank=4",
            "`search.hyperparameters` must be a known name, but got 'loar'. Did you mean 'lora'",
        ),
        ("search.hyperparameters.lora=4", "`search.hyperparameters.lora` must be a valid dictionary, but got 4"),
        ("search.sampler=tep", "`search.sampler` must be a known name, but got 'tep'. Did you mean 'tpe'"),
        ("search.space=cor", "`search.space` must be a known name, but got 'cor'. Did you mean 'core'"),
        ("objectives=fid,fid", r"`objectives` must be distinct names, at least one, but got \['fid', 'fid'\]"),
        ("objectives=[]", "`objectives` must be distinct names, at least one"),
        ("training.num_epochs=0", "`training.num_epochs` must be greater than or equal to 1, but got 0. Change it"),
        ("training.num_epochs=many", "`training.num_epochs` must be a valid integer.*but got 'many'"),
        ("evaluation.guidance_scale=.nan", "`evaluation.guidance_scale` must be.*but got nan"),
        ("evaluation.images_per_condition=1", "`evaluation.images_per_condition` must be greater than or equal to 2"),
        ("data.resolution_px=100", "`data.resolution_px` must be a multiple of 8, but got 100"),
        ("data.source=phantm", "`data.source` must be 'phantom' or 'prepared', but got 'phantm'"),
        ("data.source=prepared", "`data.path` must name a prepared data set.*but got none. Prepare one"),
        ("seed.a=3", "`seed` must be a valid integer, but got {'a': 3}"),
        ("num_trials", "`--set` must be KEY=VALUE, but got 'num_trials'"),
        ("num_trials=[", r"`--set` must have a YAML value, but got 'num_trials=\['"),
    ],
)
def test_what_is_wrong_is_answered_with_rule_value_and_remedy(override: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        load_config("demo", None, [override])


@pytest.mark.parametrize(
    "old", ["strategies=[lora]", "space=core", "num_trials=5", "hyperparameters.lora.rank=4", "hyperparameters={}"]
)
def test_a_key_of_the_search_without_its_section_is_answered_with_it(old: str) -> None:
    name = re.split(r"[.=]", old)[0]
    with pytest.raises(ConfigError, match=rf"but got '{name}'\. Did you mean 'search\.{name}'\? Valid: "):
        load_config("demo", None, [old])


def test_every_problem_is_told_at_once() -> None:
    with pytest.raises(ConfigError) as caught:
        load_config("demo", None, ["seed=-1", "training.num_epochs=0", "nonsense=1"])
    assert len(str(caught.value).splitlines()) == 3


def test_unknown_preset_is_answered_with_the_nearest() -> None:
    with pytest.raises(ConfigError, match=r"`preset` must be a known name, but got 'dem'\. Did you mean 'demo'"):
        load_config("dem")


def test_a_preset_named_in_the_file_is_not_taken_for_another(tmp_path: Path) -> None:
    """A file may repeat the preset's name, as a run's config.json does; it cannot choose one."""
    file = tmp_path / "sweep.yaml"
    file.write_text("preset: nih64\nsearch: {num_trials: 5}\n")
    with pytest.raises(ConfigError, match=r"`preset` must be 'demo', .*but got 'nih64'\. Choose .* --preset nih64"):
        load_config("demo", file)
    assert load_config("nih64", file).search.num_trials == 5


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "must name a readable file, but got .*No such file"),
        ("a: [", "must be YAML"),
        ("- 1", "must hold keys and values, but got list"),
        ("", "must hold keys and values, but got nothing"),
    ],
)
def test_bad_files(tmp_path: Path, content: str | None, message: str) -> None:
    file = tmp_path / "sweep.yaml"
    if content is not None:
        file.write_text(content)
    with pytest.raises(ConfigError, match=f"`--config` {message}"):
        load_config("demo", file)


def test_a_kept_configuration_is_read_again_and_what_is_wrong_in_it_answered() -> None:
    kept = PRESETS["nih64"]().model_dump(mode="json")
    assert parse_config(kept) == PRESETS["nih64"]()
    with pytest.raises(ConfigError, match=r"but got 'num_trials'\. Did you mean 'search.num_trials'"):
        parse_config({**kept, "num_trials": 3})


def test_configuration_is_frozen_and_survives_json() -> None:
    config = PRESETS["nih64"]()
    assert SweepConfig.model_validate_json(config.model_dump_json()) == config
    with pytest.raises(ValueError, match="frozen"):
        config.search.num_trials = 3  # type: ignore[misc]


@pytest.mark.parametrize("extractor", ["xrv", "xrv-mimic_nb", "rad_dino"])
def test_metrics_are_reported_with_their_extractor_and_costs_plainly(extractor: str) -> None:
    config = load_config("demo", None, [f"evaluation.extractor={extractor}", "objectives=fid,vendi,epoch_s"])
    reported = [(objective.name, objective.direction) for objective in config.reported_objectives()]
    assert reported == [(f"fid_{extractor}", "min"), (f"vendi_{extractor}", "max"), ("epoch_s", "min")]


def test_an_unknown_extractor_of_the_configuration_is_answered_with_the_nearest() -> None:
    with pytest.raises(ConfigError, match=r"`evaluation.extractor` .* got 'xrv-rnsa'. Did you mean 'xrv-rsna'"):
        load_config("demo", None, ["evaluation.extractor=xrv-rnsa"])


@pytest.mark.slow
def test_names_are_checked_before_torch_is_imported() -> None:
    code = "import sys; import sweep.config; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_every_objective_has_a_direction() -> None:
    directions = objective_directions()
    assert {"fid": "min", "vendi": "max", "trainable_parameters": "min", "epoch_s": "min"}.items() <= directions.items()
    assert set(directions.values()) == {"min", "max"}


@pytest.mark.slow
@settings(deadline=None)
@given(st.text(min_size=1, max_size=20))
def test_any_text_as_override_is_understood_or_refused(text: str) -> None:
    try:
        load_config("demo", None, [text])
    except ConfigError as error:
        assert re.search("` must .*, but got ", str(error), re.DOTALL)


def test_located_folders_do_not_depend_on_the_working_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "model").mkdir()
    overrides = ["base=model", "data.source=prepared", "data.path=films", "evaluation.extractor_weights=weights"]
    located = load_config("demo", overrides=overrides).located()
    folders = [located.base, located.data.path, located.evaluation.extractor_weights]
    assert list(map(str, folders)) == [str(tmp_path / name) for name in ("model", "films", "weights")]
    assert load_config("demo").located().base == "mini"


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (
            ["search.rungs.first=4", "training.num_epochs=4"],
            r"`search.rungs.first` must be below the 4 epochs of training.num_epochs, but got 4: the rungs 4, 12, ... would "
            r"stop nothing. Lower it to at most 3",
        ),
        (
            ["search.rungs.floors={lora: 9}", "training.num_epochs=4"],
            r"must be at most the 4 epochs .* but got 9 for lora",
        ),
        (
            ["search.rungs.floors={loar: 1}"],
            r"`search.rungs.floors` must be a known name, but got 'loar'. Did you mean 'lora'",
        ),
        (["search.scheduler=hyperband"], r"`search.scheduler` must be a known name, but got 'hyperband'"),
    ],
)
def test_rungs_that_stop_nothing_and_unknown_schedulers_are_refused(overrides: list[str], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        load_config("demo", None, overrides)


def test_rungs_follow_the_number_of_epochs_and_without_stops_there_are_none() -> None:
    assert load_config("demo", None, ["training.num_epochs=9"]).search.ladder(9).epochs == (1, 3)
    assert load_config("demo", None, ["search.scheduler=none"]).search.ladder(9).epochs == ()
    floors = load_config("demo", None, ["search.rungs.floors.lora=2"]).search.ladder(4)
    assert not floors.may_stop("lora", 1) and floors.may_stop("lora", 2) and floors.may_stop("unet", 1)

"""What every preset promises: a documented study whose configuration carries its name and survives being written down."""

from __future__ import annotations

import json
import re
import shlex
import subprocess

import pytest

from sweep.config import SweepConfig
from sweep.loading import load_config
from sweep.presets import PRESETS


@pytest.fixture(params=PRESETS)
def name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def test_its_configuration_carries_its_name(name: str) -> None:
    assert PRESETS[name]().preset == name
    assert load_config(name) == PRESETS[name]()


def test_it_says_what_it_is_for(name: str) -> None:
    assert (PRESETS[name].__doc__ or "").strip()


def test_it_survives_being_written_down(name: str) -> None:
    written = json.dumps(PRESETS[name]().model_dump(mode="json"))
    assert SweepConfig.model_validate(json.loads(written)) == PRESETS[name]()


def test_a_value_over_it_is_taken(name: str) -> None:
    assert load_config(name, None, ["search.num_trials=3"]).search.num_trials == 3


def test_the_command_that_it_gives_can_be_pasted_into_a_shell(name: str) -> None:
    """A line that is not continued would prepare other data than the study's, without a word."""
    for command in re.findall(r"^ *python -m .*?\n\s*\n", PRESETS[name].__doc__ or "", re.DOTALL | re.MULTILINE):
        pasted = subprocess.run(
            ["sh", "-c", f'python() {{ printf "%s\\n" "$@"; }}\n{command}'], capture_output=True, text=True
        )
        assert pasted.stderr == ""
        assert pasted.stdout.splitlines() == shlex.split(command.replace("\\\n", " "))[1:]

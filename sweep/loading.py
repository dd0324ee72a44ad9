"""Reading a configuration: a preset, a YAML file and overrides, in that order; every fault is answered with its remedy."""

from __future__ import annotations

import difflib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import yaml
from pydantic import BaseModel, ValidationError

from sweep.config import ConfigError, SweepConfig, require_known
from sweep.presets import PRESETS

CONFIG: Final = "config.json"
"""The resolved configuration in a run directory."""


def load_config(preset: str, file: Path | None = None, overrides: Sequence[str] = ()) -> SweepConfig:
    """Resolve a configuration: the preset's values, then the file's, then the overrides'.

    Args:
        preset: A name in the table of presets.
        file: YAML file with any of the keys, nested as the sections are.
        overrides: `KEY=VALUE` each, with a dotted key such as `training.num_epochs` and a YAML value.

    Raises:
        ConfigError: a preset, key or name is unknown, a value is out of its range, or file or overrides name another
            preset.
    """
    require_known("preset", [preset], PRESETS)
    values = PRESETS[preset]().model_dump()
    if file is not None:
        values = _merged(values, _read_yaml(file))
    for override in overrides:
        values = _merged(values, _parse_override(override))
    config = parse_config(values)
    if config.preset != preset:
        raise ConfigError(
            f"`preset` must be {preset!r}, the one that the other values come from, but got {config.preset!r}. "
            f"Choose a preset with --preset {config.preset}."
        )
    return config


def load_run_config(run: Path, overrides: Sequence[str] = ()) -> SweepConfig:
    """The configuration of a run directory with overrides.

    Args:
        run: Run directory.
        overrides: As in `load_config`.

    Raises:
        ConfigError: the folder holds no run, or as `load_config`.
    """
    file = run / CONFIG
    if not file.is_file():
        raise ConfigError(
            f"`--resume` must be a run directory, but got {str(run)!r}, which has no {CONFIG}. Check the path, or start "
            "a sweep with --out."
        )
    values: Mapping[str, Any] = json.loads(file.read_text(encoding="utf-8"))
    for override in overrides:
        values = _merged(values, _parse_override(override))
    return parse_config(values)


def parse_config(values: Mapping[str, Any]) -> SweepConfig:
    """The configuration that these values are, nested as the sections are; a run's `config.json` holds such.

    Raises:
        ConfigError: a key or name is unknown, or a value is out of its range.
    """
    try:
        return SweepConfig.model_validate(values)
    except ValidationError as error:
        raise ConfigError("\n".join(_explain(dict(problem)) for problem in error.errors())) from error


def _merged(base: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    result = dict(base)
    for key, value in changes.items():
        nested = isinstance(value, Mapping) and isinstance(result.get(key), Mapping)
        result[key] = _merged(result[key], value) if nested else value
    return result


def _read_yaml(file: Path) -> dict[str, Any]:
    try:
        content = yaml.safe_load(file.read_text())
    except OSError as error:
        raise ConfigError(
            f"`--config` must name a readable file, but got {str(file)!r} ({error.strerror}). Check the path."
        ) from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigError(f"`--config` must be YAML, but got {str(file)!r}: {error}. Mend the file.") from error
    if not isinstance(content, dict):
        kind = "nothing" if content is None else type(content).__name__
        raise ConfigError(
            f"`--config` must hold keys and values, but got {kind} in {str(file)!r}. Write, say, `seed: 1`."
        )
    return content


def _parse_override(override: str) -> dict[str, Any]:
    key, separator, text = override.partition("=")
    if not separator or not key.strip():
        raise ConfigError(
            f"`--set` must be KEY=VALUE, but got {override!r}. Write for example --set training.num_epochs=5."
        )
    try:
        value = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise ConfigError(f"`--set` must have a YAML value, but got {override!r}. Quote the value.") from error
    for part in reversed(key.strip().split(".")):
        value = {part: value}
    return dict(value)


def _keys(section: type[BaseModel] = SweepConfig, prefix: str = "") -> list[str]:
    keys: list[str] = []
    for name, field in section.model_fields.items():
        if isinstance(field.default, BaseModel):
            keys += _keys(type(field.default), f"{prefix}{name}.")
        else:
            keys.append(prefix + name)
    return keys


def _explain(problem: Mapping[str, Any]) -> str:
    key = ".".join(str(part) for part in problem["loc"])
    cause = problem.get("ctx", {}).get("error")
    if cause is not None:
        return str(cause)
    if problem["type"] == "extra_forbidden":
        return _explain_unknown_key(key)
    rule = problem["msg"].replace("Input should", "must", 1)
    remedy = f"Change it with --set {key}=VALUE or in the configuration file."
    return f"`{key}` {rule}, but got {problem['input']!r}. {remedy}"


def _explain_unknown_key(key: str) -> str:
    """Nearest keys by their dotted names, and by their last parts: `num_epoch` is near `training.num_epochs`."""
    keys = _keys()
    near = difflib.get_close_matches(key, keys, n=2, cutoff=0.7)
    leaves = difflib.get_close_matches(_leaf(key), {_leaf(full) for full in keys}, n=2, cutoff=0.7)
    near += [full for full in keys if _leaf(full) in leaves and full not in near]
    remedy = f"Did you mean {' or '.join(near[:3])}?" if near else f"Choose one of: {', '.join(keys)}."
    return f"`{key}` must be a key of the configuration, but got an unknown one. {remedy}"


def _leaf(key: str) -> str:
    return key.rpartition(".")[2]

"""Reading a configuration: a preset, a YAML file and overrides, in that order; every fault is answered with its remedy."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import NoneType
from typing import Annotated, Any, Final, Literal, get_args, get_origin

import yaml
from pydantic import BaseModel, ValidationError

from analysis.checks import unknown_name
from analysis.run_folder import CONFIG
from search_spaces import SEARCH_SPACES, SHARED, is_known_to
from sweep.config import ENCODER_FIELDS, ConfigError, SweepConfig, require_known
from sweep.notation import read_value, read_words
from sweep.presets import PRESETS

LONGEST_VALUE: Final = 200
"""The most characters of a value that a message repeats."""


def load_config(preset: str, file: Path | None = None, overrides: Sequence[str] = ()) -> SweepConfig:
    """Resolve a configuration: the preset's values, then the file's, then the overrides'.

    Args:
        preset: a name in the table of presets.
        file: YAML file with any of the keys, nested as the sections are.
        overrides: `KEY=VALUE` each, with a dotted key such as `training.num_epochs`. The value of a text or a path is all
            that stands there; others are YAML's, with numbers as people write them.

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
        run: run directory.
        overrides: as in `load_config`.

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
    _expect_no_switch(values)
    try:
        return SweepConfig.model_validate(values)
    except ValidationError as error:
        by_key: dict[str, list[Mapping[str, Any]]] = {}
        for problem in error.errors():
            by_key.setdefault(_key_at(problem["loc"]), []).append(dict(problem))
        raise ConfigError("\n".join(_explain(key, problems) for key, problems in by_key.items())) from error


def _expect_no_switch(values: Mapping[str, Any], path: tuple[str, ...] = ()) -> None:
    """Refuse `yes` and `true` where numbers are: as one they would be 1."""
    for name, value in values.items():
        key = (*path, name)
        if isinstance(value, Mapping):
            _expect_no_switch(value, key)
        elif isinstance(value, bool) and {int, float} & set(_types(key)):
            raise ConfigError(_refusal(".".join(key), "must be a number", value))


def _merged(base: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    result = dict(base)
    for key, value in changes.items():
        nested = isinstance(value, Mapping) and isinstance(result.get(key), Mapping)
        result[key] = _merged(result[key], value) if nested else value
    return result


def _read_yaml(file: Path) -> dict[str, Any]:
    try:
        content = read_value(file.read_text())
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
    path = key.strip().split(".")
    try:
        value = _reader(path)(text)
    except yaml.YAMLError as error:
        raise ConfigError(
            f"`--set` must have a YAML value, but got {override!r}. Close its brackets and quotes."
        ) from error
    for part in reversed(path):
        value = {part: value}
    return dict(value)


def _reader(path: Sequence[str]) -> Callable[[str], Any]:
    """What makes a value of the text that is given for a key."""
    if _is_encoder(path):
        return str
    types = set(_types(path))
    is_optional = NoneType in types
    if int in types or (tuple not in types and not (types and types <= {str, Path, NoneType})):
        return read_value
    read: Callable[[str], Any] = read_words if tuple in types else str
    return lambda text: None if is_optional and text in ("", "null") else read(text)


def _is_encoder(path: Sequence[str]) -> bool:
    """Whether a key names a text encoder, which is a path; other hyperparameters have no types here."""
    return path[:2] == ["search", "hyperparameters"] and ".".join(path[3:]) in ENCODER_FIELDS


def _types(path: Sequence[str]) -> list[Any]:
    """The types that a key's value may have; none for keys that are sections or unknown."""
    section: type[BaseModel] = SweepConfig
    for part in path[:-1]:
        default = section.model_fields[part].default if part in section.model_fields else None
        if not isinstance(default, BaseModel):
            return []
        section = type(default)
    field = section.model_fields.get(path[-1])
    return [] if field is None else _alternatives(field.annotation)


def _alternatives(annotation: Any) -> list[Any]:
    origin = get_origin(annotation)
    if origin is Literal:
        return [type(value) for value in get_args(annotation)]
    if origin is Annotated:
        return _alternatives(get_args(annotation)[0])
    if origin in (None, tuple, dict):
        return [origin or annotation]
    return [kind for argument in get_args(annotation) for kind in _alternatives(argument)]


def _keys(section: type[BaseModel] = SweepConfig, prefix: str = "") -> list[str]:
    keys: list[str] = []
    for name, field in section.model_fields.items():
        if isinstance(field.default, BaseModel):
            keys += _keys(type(field.default), f"{prefix}{name}.")
        else:
            keys.append(prefix + name)
    return keys


def _key_at(place: Sequence[int | str]) -> str:
    """The key in which a problem lies; where it may have values of several types, pydantic's place goes on with their names."""
    parts = [str(part) for part in place]
    for end in range(1, len(parts)):
        if len({*_types(parts[:end])} - {NoneType}) > 1:
            return ".".join(parts[:end])
    return ".".join(parts)


def _explain(key: str, problems: Sequence[Mapping[str, Any]]) -> str:
    """What is wrong with a key's value: one problem, or one for each type that it might have had."""
    cause = problems[0].get("ctx", {}).get("error")
    if cause is not None:
        return str(cause)
    if problems[0]["type"] == "extra_forbidden":
        return _explain_unknown_key(key)
    return _refusal(key, " or ".join(_rule(problem) for problem in problems), problems[0]["input"])


def _rule(problem: Mapping[str, Any]) -> str:
    rule = str(problem["msg"]).replace("Input should", "must", 1)
    return rule if rule.startswith("must") else f"must be of its kind ({rule})"


def _refusal(key: str, rule: str, value: object) -> str:
    came = repr(value)
    came = came if len(came) <= LONGEST_VALUE else f"{came[:LONGEST_VALUE]} ..."
    return f"`{key}` {rule}, but got {came}. Change it with --set {key}=VALUE or in the configuration file."


def _explain_unknown_key(key: str) -> str:
    """The nearest keys; for what is a hyperparameter, where it stands."""
    leaf = key.rpartition(".")[2]
    places = [f"search.hyperparameters.{key}"] if any(is_known_to(space, key) for space in SEARCH_SPACES) else []
    places += [f"search.hyperparameters.STRATEGY.{leaf}"] if leaf in SHARED else []
    if not places:
        return unknown_name("key of the configuration", key, _keys())
    return f"`key of the configuration` must be a known name, but got {key!r}. Did you mean {' or '.join(places)}?"

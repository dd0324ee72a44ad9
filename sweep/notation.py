"""How values are written in configuration files and after --set: YAML, but numbers are what people take for numbers."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any, Final

import yaml

NUMBER: Final = re.compile(r"[-+]?((\d+(_\d+)*\.?\d*|\.\d+)([eE][-+]?\d+)?|\.(inf|nan))", re.ASCII)
NUMBER_TAG: Final = "tag:yaml.org,2002:float"
OTHERS_OF_YAML: Final = {NUMBER_TAG, "tag:yaml.org,2002:int", "tag:yaml.org,2002:timestamp"}
"""Tags of YAML 1.1 that are left out here: they take `0123` for 83, `1:30` for 90, `1e1` for text, and `2026-01-02` for
a date."""
MAX_DIGITS: Final = 400
"""The most characters that a number may have; no float is longer."""


class _Notation(yaml.SafeLoader):
    """YAML whose numbers are decimal: `0123` is 123, `1_000` is 1000, and `1e1` is 10 as `1e-3` is 0.001."""


class _Words(yaml.BaseLoader):
    """YAML in which everything is text."""


def _decimal(loader: _Notation, node: yaml.ScalarNode) -> int | float | str:
    written = str(loader.construct_scalar(node))
    text = written.replace("_", "").replace(".inf", "inf").replace(".nan", "nan")
    if len(text) > MAX_DIGITS:
        return written
    if text.lstrip("+-").isdecimal():
        return int(text)
    value = float(text)
    return int(value) if "." not in text and value.is_integer() else value


_Notation.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in patterns if tag not in OTHERS_OF_YAML]
    for first, patterns in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
_Notation.add_implicit_resolver(NUMBER_TAG, re.compile(rf"(?:{NUMBER.pattern})\Z", re.ASCII), list("-+.0123456789"))
_Notation.add_constructor(NUMBER_TAG, _decimal)


def read_value(text: str) -> Any:
    """The value that a text is.

    Raises:
        yaml.YAMLError: it is none.
    """
    return yaml.load(text, _Notation)


def read_words(text: str) -> Any:
    """Names, in a list or apart by commas, of which none is a number.

    Raises:
        yaml.YAMLError: it is a list that does not end.
    """
    return yaml.load(text, _Words) if text.lstrip().startswith("[") else text


def flat(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Nested values by dotted keys, such as `training.num_epochs`."""
    for name, value in values.items():
        if isinstance(value, Mapping):
            yield from flat(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value

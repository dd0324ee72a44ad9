"""A data set as Hugging Face's hub has it, on disk: `README.md` and Parquet files, such as `data/train-00000-of-00002.parquet`.

The head of `README.md` may have `configs`, of which one is read: the only one, that marked as default, or that called so. Its
`data_files` name the files of each split by patterns; where they say nothing, the files' names tell it. `dataset_info` may say
what columns hold, where the files do not.

Source: huggingface.co/docs/hub (data files configuration; manual configuration), huggingface.co/docs/datasets (repository
structure).
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

import yaml

from trainables.datasets.problems import listed

README: Final = "README.md"
PARQUET: Final = "*.parquet"
HEAD: Final = re.compile(r"\A\ufeff?---\s*\n(.*?)\n---\s*(\n|\Z)", re.DOTALL)
NUMBERED: Final = re.compile(r"(.+)-\d{5}-of-\d{5}")
KEYWORDS: Final = {
    "train": ("train", "training"),
    "validation": ("validation", "valid", "val", "dev"),
    "test": ("test", "testing", "eval", "evaluation"),
}
Features = Mapping[str, Any]


class NoHubFolderError(ValueError):
    """A folder is no data set of the hub, nor one that `save_to_disk` wrote; the message is what is there instead."""


def is_snapshot(root: Path) -> bool:
    """Whether a folder has a `README.md` and a Parquet file somewhere below."""
    return (root / README).is_file() and any(root.rglob(PARQUET))


def snapshot_files(readme: Path) -> list[tuple[str, Path, Features]]:
    """The split, empty where nothing says it, the path and what is noted of the columns, of each Parquet file in its order.

    Raises:
        NoHubFolderError: there is no telling which files are meant, or one of them is no Parquet file.
    """
    root, head = readme.parent, _head(readme)
    config = _config(_mappings(head.get("configs")))
    noted = _noted(_mappings(head.get("dataset_info")), str(config.get("config_name", "default")))
    files = list(_files(root, config))
    others = [path.name for _, path in files if path.suffix != ".parquet"]
    if others or not files:
        raise NoHubFolderError(f"{listed(others) or 'no file'} where Parquet files must be")
    return [(split, path, noted) for split, path in files]


def _head(readme: Path) -> dict[str, Any]:
    match = HEAD.match(readme.read_bytes().decode("utf-8", errors="replace"))
    try:
        head = yaml.safe_load(match[1]) if match else {}
    except (yaml.YAMLError, ValueError) as error:  # a date that is none is a ValueError
        raise NoHubFolderError(f"{' '.join(str(error).split())} in {README}") from error
    return head if isinstance(head, dict) else {}


def _mappings(value: object) -> list[dict[str, Any]]:
    """Those of a list, or the only one."""
    values = value if isinstance(value, list) else [value]
    return [item for item in values if isinstance(item, dict)]


def _config(configs: list[dict[str, Any]]) -> dict[str, Any]:
    marked = [config for config in configs if config.get("default") is True]
    named = [config for config in configs if config.get("config_name") == "default"]
    for chosen in (configs, marked, named):
        if len(chosen) == 1:
            return chosen[0]
    if configs:
        names = listed(str(config.get("config_name")) for config in configs)
        raise NoHubFolderError(f"several configurations, {names}, of which none is the default")
    return {}


def _noted(infos: list[dict[str, Any]], name: str) -> Features:
    """What `dataset_info` says of the columns of a configuration: which are images, and the names of classes."""
    of_config = [info for info in infos if str(info.get("config_name", "default")) == name] or infos[:1]
    columns = _mappings(of_config[0].get("features")) if of_config else []
    noted = {str(column.get("name")): _feature(column) for column in columns}
    return {name: feature for name, feature in noted.items() if feature}


def _feature(column: Mapping[str, Any]) -> dict[str, Any]:
    """A column of `dataset_info` as the files' own account has it; empty for plain values."""
    for several in ("sequence", "list"):
        if isinstance(column.get(several), dict) and (each := _feature({"dtype": column[several], **column[several]})):
            return {"_type": "List", "feature": each}
    dtype = column.get("dtype")
    if dtype == "image":
        return {"_type": "Image"}
    names = dtype.get("class_label", {}).get("names") if isinstance(dtype, dict) else None
    if isinstance(names, dict):
        names = [names[key] for key in sorted(names, key=int)]
    return {"_type": "ClassLabel", "names": [str(name) for name in names]} if isinstance(names, list) else {}


def _files(root: Path, config: Mapping[str, Any]) -> Iterator[tuple[str, Path]]:
    data_files = config.get("data_files")
    folder = str(config.get("data_dir") or ".")
    if data_files is None:
        yield from ((_split_of(path, root), path) for path in _matching(root, f"{folder}/**/{PARQUET}"))
        return
    for split, patterns in _patterns(data_files):
        for pattern in patterns:
            yield from ((split, path) for path in _matching(root, f"{folder}/{pattern}"))


def _patterns(data_files: object) -> list[tuple[str, list[str]]]:
    """By split, the patterns of its files; `train` has those that are given without one, as on the hub."""
    if isinstance(data_files, dict):
        return [(str(split), _texts(paths)) for split, paths in data_files.items()]
    if isinstance(data_files, list) and all(isinstance(item, dict) for item in data_files):
        return [(str(item.get("split", "train")), _texts(item.get("path"))) for item in data_files]
    return [("train", _texts(data_files))]


def _texts(value: object) -> list[str]:
    return [str(item) for item in value] if isinstance(value, list) else [str(value)]


def _matching(root: Path, pattern: str) -> list[Path]:
    try:
        paths = sorted(path for path in root.glob(pattern) if path.is_file())
    except (ValueError, NotImplementedError, OSError) as error:
        raise NoHubFolderError(f"{pattern!r}, which is no pattern ({error})") from error
    if not paths:
        raise NoHubFolderError(f"no file {pattern}")
    return paths


def _split_of(path: Path, root: Path) -> str:
    """By the name before its number, or a word of the path."""
    if numbered := NUMBERED.match(path.stem):
        return numbered[1]
    words = re.split(r"[^a-z]+", str(path.relative_to(root).with_suffix("")).lower())
    return next((split for split, keywords in KEYWORDS.items() if set(keywords) & set(words)), "")

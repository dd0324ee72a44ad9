"""A trial's ranks as they are on disk, and where in the network each layer is."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

RANKS: Final = "ranks.json"
ATTENTION: Final = {"to_q": "q", "to_k": "k", "to_v": "v", "to_out.0": "out"}
TEXT: Final = {
    "self_attn.q_proj": "q",
    "self_attn.k_proj": "k",
    "self_attn.v_proj": "v",
    "self_attn.out_proj": "out",
    "mlp.fc1": "in",
    "mlp.fc2": "out",
}
GROUPS: Final = ("self-attention", "cross-attention", "feed-forward", "other")
STAGES: Final = ("in", "down", "mid", "up", "out")
LAST: Final = 10**6
"""Stands for the last column of a block, where its downsampler or upsampler is."""


@dataclass(frozen=True, kw_only=True, eq=False)
class RankHistory:
    """Ranks over a training.

    Attributes:
        layers: paths of the layers, such as `unet.mid_block...to_q`.
        steps: optimiser steps taken, increasing.
        ranks: int[steps, layers], the rank of each layer after so many steps.
    """

    layers: tuple[str, ...]
    steps: tuple[int, ...]
    ranks: NDArray[np.int64]


@dataclass(frozen=True, kw_only=True)
class Place:
    """Where a layer is drawn.

    Attributes:
        part: `unet` or `text_encoder`; a panel.
        block: what columns are grouped by: stage and number.
        column: 0-based number of the column within its block.
        row: group and name of the row.
    """

    part: str
    block: tuple[str, int]
    column: int
    row: tuple[str, str]


def read_ranks(file: Path) -> RankHistory:
    """Read what a trial wrote.

    Raises:
        ValueError: it is not JSON of layers, steps and a rank for each of both.
    """
    try:
        return _history(json.loads(file.read_text(encoding="utf-8")))
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(
            f"`{file.name}` must hold layers, steps and a rank for each, but got: {error!r}. Restore the file."
        ) from error


def _history(record: Any) -> RankHistory:
    layers, steps = tuple(map(str, record["layers"])), tuple(map(int, record["steps"]))
    ranks = np.array(record["ranks"], dtype=np.int64)
    if not layers or not steps or ranks.shape != (len(steps), len(layers)):
        raise ValueError(f"{len(steps)} steps, {len(layers)} layers and ranks of shape {ranks.shape}")
    return RankHistory(layers=layers, steps=steps, ranks=ranks)


def place_of(path: str) -> Place:
    """Where a layer of Stable Diffusion's U-Net or text encoder is in it, by the names that diffusers gives."""
    part, _, inner = path.partition(".")
    match = re.search(r"\blayers\.(\d+)\.(.+)$", inner)
    if part == "text_encoder" and match:
        return Place(part=part, block=("layers", 0), column=int(match[1]), row=_text_row(match[2]))
    match = re.match(r"(down|mid|up)_blocks?(?:\.(\d+))?\.(\w+)\.(\d+)\.(.+)$", inner)
    if match is None:
        stage = "out" if inner.startswith("conv_out") else "in"
        return Place(part=part, block=(stage, 0), column=0, row=("other", _plain(inner)))
    stage, number, kind, column, rest = match.groups()
    is_sampler = kind.endswith("samplers")
    block = (stage, int(number or 0))
    return Place(part=part, block=block, column=LAST if is_sampler else int(column), row=_unet_row(kind, rest))


def _plain(name: str) -> str:
    return name.replace("time_embedding.", "time_").replace("time_emb_proj", "time").replace("_", " ")


def _text_row(name: str) -> tuple[str, str]:
    if name not in TEXT:
        return "other", name
    return GROUPS[0] if "attn" in name else GROUPS[2], TEXT[name]


def _unet_row(kind: str, rest: str) -> tuple[str, str]:
    match = re.match(r"transformer_blocks\.(\d+)\.(attn1|attn2|ff)\.(.+)$", rest)
    if match is None:
        return "other", (kind.rstrip("s") if kind.endswith("samplers") else _plain(rest))
    depth, group, layer = match.groups()
    more = "" if depth == "0" else f" {int(depth) + 1}"
    if group == "ff":
        return GROUPS[2], ("in" if layer.startswith("net.0") else "out") + more
    return GROUPS[0] if group == "attn1" else GROUPS[1], ATTENTION.get(layer, layer) + more

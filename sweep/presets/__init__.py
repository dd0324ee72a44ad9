"""Presets: whole studies by name, one file each, as functions that give their configuration."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from sweep.config import SweepConfig
from sweep.presets.demo import demo
from sweep.presets.nih64 import nih64
from sweep.presets.nih512 import nih512

PRESETS: Final[dict[str, Callable[[], SweepConfig]]] = {"demo": demo, "nih64": nih64, "nih512": nih512}

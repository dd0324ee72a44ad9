"""What the presets compare."""

from __future__ import annotations

from typing import Final

COMPARED: Final = ("unet", "lora", "dora", "bitfit")
"""The strategies that presets compare: so few that a dozen trials say something of each. The spaces have more."""

"""Formats of exported adapters: one file each, one line in the table."""

from trainables.exports.base import ExportFormat
from trainables.exports.diffusers import Diffusers
from trainables.exports.pipeline import Pipeline

EXPORT_CARD = "export.json"
"""What an export came from, beside it."""
EXPORTS: dict[str, ExportFormat] = {
    "diffusers": Diffusers(),
    "pipeline": Pipeline(),
}

__all__ = ["EXPORTS", "EXPORT_CARD", "ExportFormat"]

"""Formats of exported adapters: one file each, one line in the table."""

from trainables.exports.base import ExportFormat
from trainables.exports.diffusers import Diffusers
from trainables.exports.pipeline import Pipeline

EXPORTS: dict[str, ExportFormat] = {
    "diffusers": Diffusers(),
    "pipeline": Pipeline(),
}

__all__ = ["EXPORTS", "ExportFormat"]

"""Formats of exported adapters: one file each, one line in the table."""

from trainables.exports.base import ExportFormat, Writing
from trainables.exports.diffusers import Diffusers
from trainables.exports.peft import Peft
from trainables.exports.pipeline import Pipeline
from trainables.exports.single_file import SingleFile
from trainables.exports.webui import WebUI

EXPORT_CARD = "export.json"
"""File beside an export that says what it came from."""
EXPORTS: dict[str, ExportFormat] = {
    "diffusers": Diffusers(),
    "peft": Peft(),
    "webui": WebUI(),
    "single_file": SingleFile(),
    "pipeline": Pipeline(),
}

__all__ = ["EXPORTS", "EXPORT_CARD", "ExportFormat", "Writing"]

"""Where images and captions come from: one file a source."""

from trainables.datasets.base import ImageTextSource, SourceOptions
from trainables.datasets.chexpert import CheXpertSource
from trainables.datasets.dicom_tree import DicomSource
from trainables.datasets.folder import FolderSource
from trainables.datasets.iu_xray import IuXraySource
from trainables.datasets.mimic_cxr import MimicCxrSource
from trainables.datasets.montgomery import MontgomerySource
from trainables.datasets.nih_cxr14 import NihCxr14Source
from trainables.datasets.padchest import PadChestSource
from trainables.datasets.phantom import PhantomSource
from trainables.datasets.rsna import RsnaSource
from trainables.datasets.vindr import VinDrSource

_SOURCES: tuple[type[ImageTextSource], ...] = (
    *(PhantomSource, FolderSource, DicomSource, NihCxr14Source, CheXpertSource, MimicCxrSource),
    *(IuXraySource, MontgomerySource, PadChestSource, VinDrSource, RsnaSource),
)
SOURCES: dict[str, type[ImageTextSource]] = {source.name: source for source in _SOURCES}

__all__ = ["SOURCES", "ImageTextSource", "NihCxr14Source", "PhantomSource", "SourceOptions"]

"""Where images and captions come from: one file a source."""

from trainables.datasets.base import ImageTextSource, SourceOptions
from trainables.datasets.nih_cxr14 import NihCxr14Source
from trainables.datasets.phantom import PhantomSource

SOURCES: dict[str, type[ImageTextSource]] = {
    PhantomSource.name: PhantomSource,
    NihCxr14Source.name: NihCxr14Source,
}

__all__ = ["SOURCES", "ImageTextSource", "NihCxr14Source", "PhantomSource", "SourceOptions"]

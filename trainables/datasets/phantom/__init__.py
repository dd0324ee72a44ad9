"""Generated frontal chest radiographs: a stand-in for real ones that needs no data and no network."""

from trainables.datasets.phantom.source import PhantomSource

__all__ = ["PhantomSource"]

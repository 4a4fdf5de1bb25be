"""The device's pictures: from files to one array, with a sentence for everything that could not be used."""

from edge.data.dataset import DataError, Dataset, Labels, Pictures, split
from edge.data.load import load

__all__ = ["DataError", "Dataset", "Labels", "Pictures", "load", "split"]

"""What the exporter refuses, and why. Messages name the thing, its value and what was expected."""


class ExportError(Exception):
    """The base: weights, a file or a request that cannot become a model."""


class CheckFailed(ExportError):
    """A model does not compute what the reference computes, or is not in the form that every device can load."""


class BundleError(ExportError):
    """A bundle on disk is incomplete, damaged or not signed by the expected key."""

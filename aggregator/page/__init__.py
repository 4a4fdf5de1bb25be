"""The web page: what the API shows, drawn with NiceGUI and kept live by the same feed of changes.

`read` functions take what a page shows out of the store, with the readers that the API has; `show` functions draw it.
"""

from aggregator.page.install import install

__all__ = ["install"]

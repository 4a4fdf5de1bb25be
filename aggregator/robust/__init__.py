"""Merging that bears devices which lie, be they broken or bought: clipping, coordinate rules, Krum.

    settle(base, Merging.parse("clip:median+trimmed:0.3"), entries, fetch, folder)

What each rule bears and needs: `rules`, `clipping`. How they are spelled: `spelling`.
"""

from aggregator.robust.settling import Entry, Settled, settle
from aggregator.robust.spelling import EXPECTED, MEAN, Merging

__all__ = ["EXPECTED", "MEAN", "Entry", "Merging", "Settled", "settle"]

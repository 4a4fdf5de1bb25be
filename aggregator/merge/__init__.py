"""Federated averaging in integers: updates are added up as they are coded, in any order, to the same bits."""

from aggregator.merge.fixed_point import MAX_UPDATES, MergeError
from aggregator.merge.partial_sum import PartialSum, check_headroom

__all__ = ["MAX_UPDATES", "MergeError", "PartialSum", "check_headroom"]

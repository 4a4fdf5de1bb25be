"""Who runs which precision and takes part how, within every device's limits and the fleet's.

`options` is what a device could do, `limits` what it must not exceed, `rules` choose, `program` is the mathematics of
the whole fleet, `plain` its twin in three lines, `mixed` the same for the layers of one network.
"""

from aggregator.allocate.rules import POLICIES, BestThatFits, Decision, Policy, Program

__all__ = ["POLICIES", "BestThatFits", "Decision", "Policy", "Program"]

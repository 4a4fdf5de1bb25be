"""Where a run's randomness comes from: 63 bits that depend on its seed, the round and a purpose, on nothing else.

Methods, recipes and precisions are left out on purpose: runs of one seed share their deal, their sampling and the
order of their pictures, so that what differs between them is what was changed.
"""

from hashlib import sha256

import numpy as np


def seed_of(seed: int, number: int, purpose: str) -> int:
    """The seed for one purpose in round `number` (0: before the first)."""
    return int.from_bytes(sha256(f"{seed}/{number}/{purpose}".encode()).digest()[:8]) >> 1


def generator(seed: int, number: int, purpose: str) -> np.random.Generator:
    """A generator for it."""
    return np.random.default_rng(seed_of(seed, number, purpose))

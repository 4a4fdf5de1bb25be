"""Who may do what at the HTTP door: the least role for each route, in one table.

A viewer looks, an operator steers the fleet and lets devices in, an administrator decides who may do so and what cannot
be undone. A device shows no token: its right lies in what it asks, a proof by its key (BF-097) or the SHA-256 of a
blob, which nobody can guess.
"""

import hmac
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from hashlib import sha256
from typing import Final

from sqlalchemy import select
from sqlalchemy.orm import Session

from aggregator.store import User


class Role(StrEnum):
    """From the least to the greatest; each may do what those before it may."""

    ANYONE = "anyone"
    DEVICE = "device"
    VIEWER = "viewer"
    OPERATOR = "operator"
    ADMIN = "admin"


GIVEN: Final = (Role.VIEWER, Role.OPERATOR, Role.ADMIN)
"""Those that a token can have."""
_RANKS: Final = {role: rank for rank, role in enumerate(Role)}

LEAST: Final[Mapping[str, Role]] = {
    "healthz": Role.ANYONE,
    "readyz": Role.ANYONE,
    "authority": Role.ANYONE,
    "join": Role.DEVICE,
    "blob": Role.DEVICE,
    "metrics": Role.VIEWER,
    "jobs": Role.VIEWER,
    "status": Role.VIEWER,
    "devices": Role.VIEWER,
    "device": Role.VIEWER,
    "rounds": Role.VIEWER,
    "one_round": Role.VIEWER,
    "updates": Role.VIEWER,
    "update": Role.VIEWER,
    "energy": Role.VIEWER,
    "models": Role.VIEWER,
    "model": Role.VIEWER,
    "learning": Role.VIEWER,
    "summary": Role.VIEWER,
    "events": Role.VIEWER,
    "set_budget": Role.OPERATOR,
    "set_group": Role.OPERATOR,
    "shut_out": Role.OPERATOR,
    "release": Role.OPERATOR,
    "restore": Role.OPERATOR,
    "abort": Role.OPERATOR,
    "pause": Role.OPERATOR,
    "resume": Role.OPERATOR,
    "tokens": Role.OPERATOR,
    "create_token": Role.OPERATOR,
    "revoke_token": Role.OPERATOR,
    "applicants": Role.OPERATOR,
    "approve": Role.OPERATOR,
    "reject": Role.OPERATOR,
    "audit_log": Role.OPERATOR,
    "revoke": Role.ADMIN,
    "list_users": Role.ADMIN,
    "add_user": Role.ADMIN,
    "remove_user": Role.ADMIN,
}
"""By the name of the function that answers; what is not here is for administrators."""


@dataclass(frozen=True, slots=True)
class Actor:
    """Somebody at the door."""

    name: str
    role: Role

    def may(self, least: Role) -> bool:
        """Whether this role is enough."""
        return _RANKS[self.role] >= _RANKS[least]


NOBODY: Final = Actor("", Role.ANYONE)
LOCAL: Final = Actor("admin-token", Role.ADMIN)
"""Whoever can read the file of that name on the aggregator's machine."""


def who(session: Session, token: str, admin_token: str) -> Actor:
    """Whose token it is; takes as long for a near miss as for a wild guess, since only digests are compared."""
    digest = sha256(token.encode()).digest()
    if hmac.compare_digest(digest, sha256(admin_token.encode()).digest()):
        return LOCAL
    row = session.scalar(select(User).where(User.digest == digest))
    return NOBODY if row is None else Actor(row.name, Role(row.role))

"""What one of the doctor's checks says."""

from dataclasses import dataclass
from enum import StrEnum


class Verdict(StrEnum):
    """How a check ended."""

    PASS = "pass"  # noqa: S105 (no password)
    WARN = "warn"
    FAIL = "fail"


@dataclass(frozen=True, slots=True)
class Finding:
    """What a check found, and what to do about it; nothing to do when it passed."""

    check: str
    verdict: Verdict
    detail: str
    advice: str = ""

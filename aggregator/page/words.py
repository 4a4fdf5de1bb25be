"""Figures in words: three digits, a unit, and a dash for what is not known."""

import time

from aggregator.tables import size

__all__ = ["ago", "bits", "day", "joules", "percent", "ratio", "seconds", "size"]

NOTHING = "–"
MJ = 1e-3


def joules(energy_mj: float | None) -> str:
    """Energy with three digits."""
    if energy_mj is None:
        return NOTHING
    value = MJ * energy_mj
    for unit, scale in (("MJ", 1e6), ("kJ", 1e3), ("J", 1.0), ("mJ", 1e-3)):
        if value >= scale:
            return f"{digits(value / scale)} {unit}"
    return f"{digits(value * 1e6)} µJ" if value else "0 J"


def digits(value: float) -> str:
    """Three digits, without an exponent where they fit."""
    return f"{value:,.0f}" if value >= 1000 else f"{value:.3g}"


def percent(part: float | None) -> str:
    """A share."""
    return NOTHING if part is None else f"{part:.1%}"


def ratio(sent: int, fp32: int) -> str:
    """How much smaller than 32-bit floats."""
    return f"1/{fp32 / sent:.3g}" if sent else NOTHING


def bits(sent: int, fp32: int) -> str:
    """Bits a weight, by what 32 would have taken."""
    return f"{32 * sent / fp32:.3g}" if fp32 else NOTHING


def seconds(span_s: float) -> str:
    """A span of time."""
    span_s = max(span_s, 0.0)
    for unit, length_s in (("d", 86400), ("h", 3600), ("min", 60)):
        if span_s >= 2 * length_s:
            return f"{span_s / length_s:.0f} {unit}"
    return f"{span_s:.0f} s" if span_s >= 10 else f"{span_s:.2g} s"


def ago(second: float, now: float) -> str:
    """How long ago something was."""
    return f"{seconds(now - second)} ago" if second else "never"


def day(second: float | None) -> str:
    """A moment, on this machine's clock."""
    return time.strftime("%Y-%m-%d %H:%M", time.localtime(second)) if second else NOTHING

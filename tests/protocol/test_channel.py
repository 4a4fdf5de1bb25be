"""Joules of a bit on the air, by hand and by the laws of the formula."""

from math import log2, log10

import pytest

from protocol.channel import Channel


def test_an_upload_by_hand():
    """At 500 m: path loss 128.1 + 37.6·log10 0.5, noise −174 dBm/Hz over 1 MHz, 0.2 W."""
    received_w = 0.2 * 10 ** (-(128.1 + 37.6 * log10(0.5)) / 10)
    rate_bps = 1e6 * log2(1 + received_w / (10 ** (-20.4) * 1e6))
    assert Channel().up_mj(1000, 0.5) == pytest.approx(1e3 * 8000 * 0.2 / rate_bps)


def test_farther_is_dearer_and_a_broadcast_goes_at_the_rate_of_the_farthest():
    channel = Channel()
    assert channel.up_mj(1, 0.5) > channel.up_mj(1, 0.25)
    assert channel.down_mj(1, [0.1, 0.5, 0.2]) == channel.down_mj(1, [0.5])


def test_halving_the_bandwidth_changes_the_rate_as_the_formula_says():
    """Noise halves too, so the rate is more than half."""
    wide, narrow = Channel(up_hz=2e6), Channel(up_hz=1e6)
    ratio = wide.up_bps(0.3) / narrow.up_bps(0.3)
    assert 1 < ratio < 2
    snr = 2.0 ** (narrow.up_bps(0.3) / 1e6) - 1
    assert wide.up_bps(0.3) == pytest.approx(2e6 * log2(1 + snr / 2))


def test_a_distance_of_nothing_is_refused():
    with pytest.raises(ValueError, match=r"distance 0 km: expected above 0"):
        Channel().up_mj(1, 0)

"""When an update stands out, and how much cause is enough."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from aggregator.strikes import FAR, LEAST, Strikes, standing_out


def alike(values: list[float]) -> dict[str, float]:
    return standing_out(
        {str(index): value for index, value in enumerate(values)}, dict.fromkeys(map(str, range(99)), "W8A8")
    )


def test_who_lies_far_out_stands_out_and_nobody_else() -> None:
    assert alike([1.0, 1.1, 0.9, 1.05, 0.97, 10.0]).keys() == {"5"}
    assert alike([1.0, 1.1, 0.9, 1.05, 0.97, 0.0]) == {}  # a small update moves nothing


def test_three_liars_of_ten_all_stand_out() -> None:
    honest = np.random.default_rng(0).normal(1.0, 0.1, 7).tolist()
    assert alike([*honest, 4.0, 4.2, 40.0]).keys() == {"7", "8", "9"}


def test_nobody_stands_out_of_a_few() -> None:
    assert alike([1.0] * (LEAST - 2) + [1000.0]) == {}
    assert alike([1.0] * (LEAST - 1) + [1000.0]).keys() == {str(LEAST - 1)}


def test_nobody_stands_out_where_all_are_nearly_alike_or_nothing() -> None:
    assert alike([1.0, 1.0001, 1.0, 0.9999, 1.0, 1.1]) == {}
    assert alike([0.0] * 6) == {}
    assert alike([0.0] * 6 + [1.0]) == {}


def test_devices_of_another_precision_are_another_kind() -> None:
    values = {f"a{index}": 1.0 + index / 100 for index in range(6)} | {
        f"b{index}": 9.0 + index / 100 for index in range(6)
    }
    assert standing_out(values, {name: name[0] for name in values}) == {}
    assert len(standing_out({**values, "b9": 9.0}, dict.fromkeys([*values, "b9"], "a"))) == 0  # half of them lie


@given(st.lists(st.floats(0, 1e6), max_size=20))
def test_scores_are_above_the_bound_and_less_than_half(values: list[float]) -> None:
    found = alike(values)
    assert all(score > FAR for score in found.values())
    assert 2 * len(found) <= len(values)


def test_enough_is_k_of_the_last_m() -> None:
    strikes = Strikes.parse("2/3")
    assert not strikes.enough([True])
    assert strikes.enough([True, True])
    assert strikes.enough([True, False, True])
    assert not strikes.enough([True, False, False, True])
    assert not strikes.enough([True, True, False, False, False])


def test_on_probation_one_is_enough_until_the_window_is_over() -> None:
    strikes = Strikes.parse("3/4")
    assert strikes.enough([False, True], on_probation=True)
    assert not strikes.enough([False] * 4 + [True], on_probation=True)
    assert not strikes.enough([False, True])


def test_off_is_never_enough() -> None:
    assert not Strikes.parse("off").enough([True] * 9)
    assert not Strikes.parse("off").enough([True], on_probation=True)


@pytest.mark.parametrize("text", ["", "on", "3", "1/3", "0/0", "4/3", "a/b", "-2/3", "2/3/4"])
def test_one_accident_can_never_be_enough(text: str) -> None:
    with pytest.raises(ValueError, match="expected off, or k/m such as 3/5"):
        Strikes.parse(text)

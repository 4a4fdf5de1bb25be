"""The table of states is whole, and nothing moves outside it."""

import pytest

from edge.lifecycle import GATED, MEMBER, MOVES, IllegalMove, Lifecycle, check_move


def test_every_state_has_its_row_and_a_way_out() -> None:
    assert set(MOVES) == set(Lifecycle)
    assert all(MOVES[state] for state in Lifecycle)


def test_every_state_can_be_reached_from_a_fresh_device() -> None:
    reached = {Lifecycle.UNPROVISIONED}
    while more := {new for old in reached for new in MOVES[old]} - reached:
        reached |= more
    assert reached == set(Lifecycle)


def test_every_member_finds_back_to_idle_in_one_move() -> None:
    assert all(Lifecycle.IDLE in MOVES[state] for state in MEMBER - {Lifecycle.IDLE})


def test_every_member_can_be_revoked() -> None:
    assert all(Lifecycle.REVOKED in MOVES[state] for state in MEMBER)


def test_work_is_taken_on_from_idle_alone() -> None:
    assert {old for old, new in MOVES.items() if Lifecycle.DOWNLOADING in new} == {Lifecycle.IDLE}


@pytest.mark.parametrize("old", Lifecycle)
def test_a_move_outside_the_table_is_refused(old: Lifecycle) -> None:
    for new in Lifecycle:
        if new in MOVES[old]:
            check_move(old, new)
        else:
            with pytest.raises(IllegalMove, match=f"{old} → {new}"):
                check_move(old, new)


def test_gated_states_are_told_apart_by_the_aggregator() -> None:
    assert len(set(GATED.values())) == len(GATED)

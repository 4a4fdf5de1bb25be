"""The program of the whole fleet against its twin, which tries everything."""

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aggregator.allocate.choices import PARTS, Choice, Groups, Infeasible, Table, parts
from aggregator.allocate.plain import brute_force
from aggregator.allocate.program import solve, whole

TAGS = ("W8A8", "W4A8", "W1A8")


@st.composite
def instances(draw: st.DrawFn) -> tuple[Groups, dict[str, float], dict[str, int]]:
    """Up to six groups of up to four choices, of whatever worth and use, and limits that bind or contradict."""
    amounts = st.one_of(st.just(0.0), st.floats(1e-6, 1e12), st.integers(1, 9).map(float))
    choice = st.builds(
        Choice,
        st.integers(-50, 50) | st.integers(-(10**7), 10**7),
        st.fixed_dictionaries({}, optional={"j": amounts, "bytes": amounts}),
        st.frozensets(st.sampled_from(TAGS), max_size=2),
    )
    groups = draw(st.lists(st.lists(choice, min_size=1, max_size=4), min_size=1, max_size=6))
    limits = st.one_of(amounts, st.just(float("inf")))
    at_most = draw(st.fixed_dictionaries({}, optional={"j": limits, "bytes": limits}))
    at_least = draw(st.dictionaries(st.sampled_from(TAGS), st.integers(0, 4), max_size=2))
    return groups, at_most, at_least


@given(instances())
def test_the_program_agrees_with_brute_force(instance: tuple[Groups, dict[str, float], dict[str, int]]) -> None:
    groups, at_most, at_least = instance
    try:
        best = brute_force(groups, at_most, at_least)
    except Infeasible:
        with pytest.raises(Infeasible):
            solve(groups, at_most, at_least)
        return
    found = solve(groups, at_most, at_least)
    assert found.worth == best.worth
    assert found.proven
    chosen = [group[pick] for group, pick in zip(groups, found.picks, strict=True)]
    assert found.worth == sum(choice.worth for choice in chosen)
    for name, limit in at_most.items():
        assert sum(choice.uses.get(name, 0.0) for choice in chosen) <= limit * (1 + 1e-12)
    for tag, count in at_least.items():
        assert sum(tag in choice.tags for choice in chosen) >= count


def fleet(devices: int, seed: int) -> tuple[Groups, dict[str, float]]:
    """Devices of very different use, six precisions each, and two fifths of what they could use."""
    draw = random.Random(seed)
    ladder = ((9970, 8), (9965, 6), (9950, 4), (9930, 3), (9880, 2), (9800, 1))
    groups = [
        [Choice(worth, {"j": base * (bits / 8 + 0.3) * draw.uniform(0.95, 1.05)}) for worth, bits in ladder]
        for base in (draw.lognormvariate(1.5, 1) for _ in range(devices))
    ]
    most = sum(group[0].uses["j"] for group in groups)
    least = sum(min(choice.uses["j"] for choice in group) for group in groups)
    return groups, {"j": least + 0.4 * (most - least)}


@pytest.mark.parametrize("seed", range(3))
def test_a_core_is_as_good_as_the_whole_program(seed: int) -> None:
    groups, at_most = fleet(60, seed)
    assert solve(groups, at_most).worth == whole(groups, at_most, {}, 60.0).worth


def test_a_thousand_devices_are_allocated_to_proven_optimality() -> None:
    groups, at_most = fleet(1000, 7)
    found = solve(groups, at_most)
    assert found.proven
    table = Table.of(groups, at_most, {})
    assert table.keeps(table.starts_G + list(found.picks))


def test_the_bound_holds_at_any_price() -> None:
    """Weak duality, by hand: one device, two choices, half of the dear one's use is left."""
    table = Table.of([[Choice(10, {"j": 2.0}), Choice(4, {"j": 0.5})]], {"j": 2.0}, {})
    for price in (0.0, 1e-6, 5e-6, 1.0):
        regret_C, bound = table.regret([price] * table.uses_RC[0:1, 0])  # type: ignore[arg-type]
        assert bound >= 10
        assert regret_C.min() == 0


@pytest.mark.parametrize(
    ("use", "limit", "expected"),
    [
        (0.0, 0.0, 0),
        (1.0, 0.0, PARTS + 1),
        (1.0, 1.0, PARTS),
        (1.0, 3.0, 333_334),
        (1e-300, 1.0, 1),
        (2.0, 1.0, PARTS + 1),
    ],
)
def test_a_use_is_rounded_up_to_parts_of_its_limit(use: float, limit: float, expected: int) -> None:
    assert parts(use, limit) == expected


def test_what_cannot_be_is_named() -> None:
    with pytest.raises(Infeasible, match=r"at most {'j': 1.0}, at least {'W8A8': 2}"):
        solve([[Choice(1, {"j": 1.0}, frozenset({"W8A8"}))]], {"j": 1.0}, {"W8A8": 2})


def test_out_of_time_says_so_and_never_claims_a_proof() -> None:
    draw = random.Random(3)
    groups = [
        [Choice(draw.randrange(10**6), {name: draw.random() for name in "abcd"}) for _ in range(12)] for _ in range(150)
    ]
    try:
        found = solve(groups, dict.fromkeys("abcd", 60.0), time_limit_s=0.3)
    except TimeoutError:
        return
    assert found.worth <= found.bound
    assert found.proven == (found.worth == found.bound)

import pytest

from protocol.errors import Unsupported
from protocol.method import ALIASES, METHODS, Method
from protocol.precision import FP32, MAX_PROFILES, Precision, join, parse_several

FLEET = (Precision(4, 8), Precision(8, 8), Precision(1, 8))


@pytest.mark.parametrize("name", [*METHODS, *(f"{name}+kure" for name in METHODS)])
def test_a_method_is_printed_as_it_was_read(name: str) -> None:
    """BF-067."""
    assert str(Method.parse(name)) == name


def test_aliases_stand_for_what_they_say() -> None:
    """BF-067."""
    assert {alias: str(Method.parse(alias)) for alias in ALIASES} == ALIASES


@pytest.mark.parametrize("name", ["", "fedavg", "kure+mqat", "mqat+kure+kure", "best+kure", "MQAT"])
def test_an_unknown_method_is_named(name: str) -> None:
    """BF-067."""
    with pytest.raises(Unsupported, match="expected one of fp32"):
        Method.parse(name)


def test_what_a_method_trains() -> None:
    own = Precision(1, 8)
    assert Method.parse("oqfl").precisions(own, FLEET) == (own,)
    assert Method.parse("kure").precisions(own, FLEET) == (FP32,)
    assert Method.parse("best").precisions(own, FLEET) == (Precision(8, 8), Precision(4, 8), Precision(1, 8))


def test_several_precisions_are_read_as_they_are_joined() -> None:
    """BF-064."""
    assert parse_several(join(FLEET)) == FLEET
    assert parse_several("fp32") == (FP32,)
    too_many = join([Precision(bits, 8) for bits in (1, 2, 3, 4, 5, 6, 7, 8)] + [FP32])
    with pytest.raises(Unsupported, match=f"at most {MAX_PROFILES}"):
        parse_several(too_many)

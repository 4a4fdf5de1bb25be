import contextlib

import msgpack
import pytest
from hypothesis import given
from hypothesis import strategies as st
from strategies import messages

from protocol.envelope import Envelope, Stamp, open_envelope, seal
from protocol.errors import (
    Forged,
    Incomplete,
    LocalProtocolError,
    Malformed,
    Refusal,
    RemoteProtocolError,
    Replayed,
    Unsupported,
)
from protocol.messages import Decline, DeclineReason, Message, State, Status
from protocol.replay import NOTHING_SEEN, admit
from protocol.signing import SigningKey

KEY, OTHER = SigningKey(bytes(range(32))), SigningKey(bytes(32))
TOPIC = "bitfleet/v1/home/d/pi-07/state"
STATE = State(Status.ONLINE, session=7)


def sealed(message: Message = STATE, *, topic: str = TOPIC, boot: int = 1, sequence: int = 1) -> bytes:
    return seal(message, topic=topic, sender="pi-07", stamp=Stamp(boot, sequence), time_ms=5, key=KEY)


def opened(data: bytes, topic: str = TOPIC) -> Envelope:
    return open_envelope(data, topic=topic, key_of={"pi-07": KEY.public}.get)


def resigned(values: object) -> bytes:
    """A map of our choice under a valid signature: what a device gone bad could send."""
    content = msgpack.packb(values)
    signed = b"bitfleet/1" + len(TOPIC).to_bytes(2, "little") + TOPIC.encode() + content
    return KEY.sign(signed) + content


@given(messages)
def test_every_message_comes_back_as_it_was(message: Message) -> None:
    """BF-010."""
    envelope = opened(sealed(message))
    assert envelope == Envelope("pi-07", Stamp(1, 1), 5, message)


def test_the_layout_is_the_one_of_the_specification() -> None:
    """BF-010, BF-011."""
    data = sealed()
    content = msgpack.unpackb(data[64:], strict_map_key=False)
    assert content == {1: 1, 2: 1, 3: "pi-07", 4: 1, 5: 1, 6: 5, 7: {1: "online", 2: 7}}
    assert resigned(content) == data


def test_moved_to_another_topic_it_is_forged() -> None:
    """BF-011."""
    with pytest.raises(Forged):
        opened(sealed(), topic=TOPIC.replace("pi-07", "pi-08"))


@pytest.mark.parametrize("position", [0, 63, 64, 70, -1])
def test_altered_in_one_bit_it_is_refused(position: int) -> None:
    """BF-011."""
    data = bytearray(sealed())
    data[position] ^= 1
    with pytest.raises(RemoteProtocolError):
        opened(bytes(data))


def test_signed_by_another_key_it_is_forged() -> None:
    """BF-011."""
    data = seal(STATE, topic=TOPIC, sender="pi-07", stamp=Stamp(1, 1), time_ms=5, key=OTHER)
    with pytest.raises(Forged, match="signature"):
        opened(data)


def test_an_unknown_sender_is_named() -> None:
    """BF-012."""
    data = seal(STATE, topic=TOPIC, sender="pi-99", stamp=Stamp(1, 1), time_ms=5, key=KEY)
    with pytest.raises(Forged, match="pi-99") as caught:
        opened(data)
    assert caught.value.refusal is Refusal.UNKNOWN_DEVICE


def test_every_strict_prefix_is_refused() -> None:
    """BF-014."""
    data = sealed()
    for end in range(len(data)):
        with pytest.raises(RemoteProtocolError):
            opened(data[:end])
    with pytest.raises(Incomplete):
        opened(data[:64])


@given(st.binary(max_size=300))
def test_any_bytes_raise_only_the_protocols_own_errors(data: bytes) -> None:
    """BF-014."""
    with pytest.raises(RemoteProtocolError):
        opened(data)


scalars = st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.floats() | st.text() | st.binary()
anything = st.recursive(
    scalars, lambda x: st.lists(x) | st.dictionaries(st.integers(0, 9) | st.text(), x), max_leaves=9
)


@given(number=st.integers(0, 20), body=anything)
def test_any_body_under_a_valid_signature_raises_only_the_protocols_own_errors(number: int, body: object) -> None:
    """BF-014, BF-015."""
    with contextlib.suppress(RemoteProtocolError):
        opened(resigned({1: 1, 2: number, 3: "pi-07", 4: 1, 5: 1, 6: 5, 7: body}))


HEAD = {1: 1, 2: 1, 3: "pi-07", 4: 1, 5: 1, 6: 5}
BODY = {1: "online", 2: 7}


@pytest.mark.parametrize(
    ("values", "error"),
    [
        pytest.param({**HEAD, 7: BODY, 1: 2}, Unsupported, id="wire version 2"),
        pytest.param({**HEAD, 7: BODY, 2: 200}, Unsupported, id="unknown type"),
        pytest.param({**HEAD}, Malformed, id="no body"),
        pytest.param({**HEAD, 7: [1]}, Malformed, id="body is a list"),
        pytest.param({**HEAD, 7: {1: "online"}}, Malformed, id="missing key"),
        pytest.param({**HEAD, 7: {1: "dancing", 2: 7}}, Malformed, id="unknown status"),
        pytest.param({**HEAD, 7: {1: "online", 2: -1}}, Malformed, id="negative session"),
        pytest.param({**HEAD, 7: {1: "online", 2: True}}, Malformed, id="boolean for integer"),
        pytest.param({**HEAD, 7: {1: "online", 2: 7.0}}, Malformed, id="float for integer"),
        pytest.param({**HEAD, 7: {1: ["online"], 2: 7}}, Malformed, id="list for text"),
        pytest.param({**HEAD, 7: BODY, 5: "1"}, Malformed, id="text for sequence"),
        pytest.param([1, 2, 3], Malformed, id="not a map"),
    ],
)
def test_a_map_that_breaks_a_rule_is_refused(values: object, error: type[RemoteProtocolError]) -> None:
    """BF-013, BF-015."""
    with pytest.raises(error):
        opened(resigned(values))


def test_a_map_above_the_limit_is_refused_before_it_is_built() -> None:
    """BF-013."""
    with pytest.raises(Malformed, match="at most 65536"):
        opened(resigned({**HEAD, 7: {**BODY, 99: b"x" * 70_000}}))


def test_a_declared_length_beyond_the_bytes_is_refused() -> None:
    """BF-014: an array header that claims four billion items in five bytes."""
    content = b"\x81\x01\xdd\xff\xff\xff\xff"
    with pytest.raises(Malformed):
        opened(bytes(64) + content)


def test_nesting_without_end_is_refused() -> None:
    """BF-014."""
    with pytest.raises(Malformed):
        opened(bytes(64) + b"\x91" * 60_000)


def test_an_unknown_key_is_ignored() -> None:
    """BF-015."""
    assert opened(resigned({**HEAD, 7: {**BODY, 99: "later"}, 42: 1})).message == STATE


def test_a_missing_key_with_a_default_takes_it() -> None:
    """BF-015."""
    body = {1: "t", 2: 1, 3: bytes(32), 4: "accepted"}
    message = opened(resigned({**HEAD, 2: 10, 7: body})).message
    assert (message.refusal, message.reason) == ("", "")


def test_a_field_out_of_bounds_is_our_fault_when_sending() -> None:
    with pytest.raises(LocalProtocolError, match="session"):
        sealed(State(Status.ONLINE, session=-1))


def decline(boot: int, sequence: int) -> Envelope:
    message = Decline("t", DeclineReason.BUSY, "", 1.0)
    return Envelope("pi-07", Stamp(boot, sequence), 0, message)


def test_a_stamp_must_rise_within_its_type() -> None:
    """BF-016."""
    seen = admit(NOTHING_SEEN, decline(1, 5))
    for boot, sequence in ((1, 5), (1, 4), (0, 99)):
        with pytest.raises(Replayed):
            admit(seen, decline(boot, sequence))
    assert admit(admit(seen, decline(1, 6)), decline(2, 0))


def test_types_are_guarded_apart() -> None:
    """BF-016: a broker keeps order within a topic, not between topics."""
    seen = admit(NOTHING_SEEN, decline(1, 5))
    admit(seen, Envelope("pi-07", Stamp(1, 2), 0, opened(resigned({**HEAD, 2: 9, 7: {1: "t", 2: b""}})).message))


def test_retained_messages_and_wills_may_return() -> None:
    """BF-017."""
    state = Envelope("pi-07", Stamp(1, 1), 0, STATE)
    assert admit(admit(NOTHING_SEEN, state), state) == NOTHING_SEEN

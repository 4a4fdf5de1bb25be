"""The base model by steps: over real HTTP, from what lies in the folder, and whole when anything is wrong."""

from collections.abc import Iterator
from dataclasses import replace
from hashlib import sha256
from http.server import BaseHTTPRequestHandler
from pathlib import Path

import pytest
import urllib3
from edge_support import Hasty, reply, serving

from aggregator.downlink import next_step
from aggregator.model import GlobalModel
from edge.bases import Bases
from edge.broadcasts import Broadcasts
from edge.downloads import Downloads
from protocol.codec.recipe import Recipe
from protocol.messages import Offer, Step
from protocol.precision import Precision

SPEC = "cnn4:width=0.25,input=1x8x8,classes=10"
W8A8 = Precision(8, 8)

Pool = urllib3.PoolManager
Made = tuple[list[Offer], dict[str, bytes]]


def offers(count: int) -> Made:
    """Offers of consecutive rounds, and the blobs behind them by name."""
    blobs: dict[str, bytes] = {}
    made: list[Offer] = []
    state, steps = None, ()
    for number in range(count):
        model = GlobalModel.fresh(SPEC, number)
        payload, after = next_step(model, [W8A8], state, Recipe.parse("stc:0.01"), number)
        before = b"" if state is None else sha256(state).digest()
        steps = (*steps, Step(before, _kept(blobs, payload), len(payload)))
        fields = ("t", number, SPEC, "W8A8", "sign", _kept(blobs, after), len(after), "s0", b"", 60.0, 1, 8, 0.1, 7)
        made.append(Offer(*fields, steps=steps))
        state = after
    return made, blobs


def _kept(blobs: dict[str, bytes], data: bytes) -> bytes:
    digest = sha256(data).digest()
    blobs[digest.hex()] = data
    return digest


class Store:
    """A server of blobs that notes what was fetched."""

    def __init__(self, blobs: dict[str, bytes]) -> None:
        self.blobs, self.asked = blobs, []

    def __call__(self, request: BaseHTTPRequestHandler) -> None:
        name = request.path.rpartition("/")[2]
        self.asked.append(name)
        found = self.blobs.get(name)
        reply(request, 404 if found is None else 200, found or b"")


@pytest.fixture
def http() -> Iterator[Pool]:
    with Pool() as pool:
        yield pool


@pytest.fixture(scope="module")
def made() -> Made:
    return offers(5)


def fetch(folder: Path, server: Store, http: Pool, offer: Offer) -> bytes:
    with serving(server) as url:
        return Bases(Downloads(folder, url, http, Hasty()), Broadcasts()).fetch(offer)


def test_a_new_device_takes_the_step_that_needs_nothing(tmp_path: Path, http: Pool, made: Made) -> None:
    """BF-028."""
    (first, *_), blobs = made
    server = Store(blobs)
    assert fetch(tmp_path, server, http, first) == blobs[first.base.hex()]
    assert server.asked == [first.steps[0].digest.hex()]
    assert [path.name for path in tmp_path.iterdir()] == [first.base.hex()]


def test_one_that_was_there_fetches_what_it_missed(tmp_path: Path, http: Pool, made: Made) -> None:
    """BF-028: one round later the last step, and three rounds later three."""
    (first, second, *_, last), blobs = made
    fetch(tmp_path, Store(blobs), http, first)
    server = Store(blobs)
    assert fetch(tmp_path, server, http, second) == blobs[second.base.hex()]
    assert server.asked == [second.steps[-1].digest.hex()]
    server = Store(blobs)
    assert fetch(tmp_path, server, http, last) == blobs[last.base.hex()]
    assert server.asked == [step.digest.hex() for step in last.steps[2:]]
    server = Store(blobs)
    assert fetch(tmp_path, server, http, last) == blobs[last.base.hex()]
    assert server.asked == []


def test_a_damaged_state_is_not_built_upon(tmp_path: Path, http: Pool, made: Made) -> None:
    (first, second, *_), blobs = made
    fetch(tmp_path, Store(blobs), http, first)
    (tmp_path / first.base.hex()).write_bytes(b"x" * first.base_bytes)
    server = Store(blobs)
    assert fetch(tmp_path, server, http, second) == blobs[second.base.hex()]
    assert server.asked == [step.digest.hex() for step in second.steps], "from nothing, as if it were new"


@pytest.mark.parametrize("spoil", ["missing", "another"])
def test_a_step_that_goes_wrong_costs_bytes_only(tmp_path: Path, http: Pool, made: Made, spoil: str) -> None:
    """BF-028: the name of the base is what counts."""
    (first, second, third, *_), blobs = made
    fetch(tmp_path, Store(blobs), http, first)
    if spoil == "missing":
        gone = second.steps[-1].digest.hex()
        server, offer = Store({name: data for name, data in blobs.items() if name != gone}), second
    else:
        server, offer = (
            Store(blobs),
            replace(second, steps=(*second.steps[:-1], replace(third.steps[-1], before=first.base))),
        )
    assert fetch(tmp_path, server, http, offer) == blobs[second.base.hex()]
    assert server.asked[-1] == second.base.hex()


def test_an_offer_without_steps_is_fetched_whole(tmp_path: Path, http: Pool, made: Made) -> None:
    """BF-022."""
    (first, *_), blobs = made
    server = Store(blobs)
    assert fetch(tmp_path, server, http, replace(first, steps=())) == blobs[first.base.hex()]
    assert server.asked == [first.base.hex()]


def test_steps_from_a_state_that_nobody_has_are_passed_over(tmp_path: Path, http: Pool, made: Made) -> None:
    (_, second, *_), blobs = made
    server = Store(blobs)
    fetch(tmp_path, server, http, replace(second, steps=second.steps[1:]))
    assert server.asked == [second.base.hex()]


def test_what_another_round_needed_is_removed(tmp_path: Path, http: Pool, made: Made) -> None:
    (first, second, *_), blobs = made
    fetch(tmp_path, Store(blobs), http, first)
    (tmp_path / ("0" * 64 + ".part")).write_bytes(b"half of something")
    fetch(tmp_path, Store(blobs), http, second)
    assert [path.name for path in tmp_path.iterdir()] == [second.base.hex()]

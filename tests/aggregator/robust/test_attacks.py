"""Three of ten devices lie to a real aggregator: flipped signs, scaled updates, wrong labels, numbers that are none."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fleet import JOB, Fleet, Opener
from simulation.attack import Attack
from sklearn.datasets import load_digits
from strategies import SMALL

from aggregator import rounds
from aggregator.merge import PartialSum
from aggregator.model import GlobalModel, base_payload
from aggregator.store import Round, Update
from edge.data import Dataset
from edge.training.task import TrainingTask
from edge.training.trainer import train
from protocol.architecture import Tensors
from protocol.codec.payload import Content, Header, encode, read
from protocol.messages import Offer
from protocol.precision import Precision

W8A8 = Precision(8, 8)
HONEST, LIARS = 7, 3
NAMES = [f"d{index}" for index in range(HONEST + LIARS)]
PICTURES = 50


DIGITS = load_digits(n_class=3)


def device_pictures(*devices: int) -> Dataset:
    """Some of the digits 0, 1 and 2, other ones for every device."""
    mine = np.concatenate([np.arange(PICTURES * index, PICTURES * (index + 1)) for index in devices])
    pictures = (DIGITS.images[mine, None] * 15.9).astype(np.uint8)
    return Dataset(pictures, DIGITS.target[mine].astype(np.int64), ("0", "1", "2"))


def learned(base: GlobalModel, pictures: Dataset, epochs: int, seed: int) -> Tensors:
    """What a device really learns."""
    fresh = not base.profiles
    task = TrainingTask(SMALL.spec, str(W8A8), epochs, 10, learning_rate=0.02, seed=seed, calibrate_steps=fresh)
    return dict(train(task, base.tensors(W8A8), pictures, lambda _: None).tensors)


@dataclass(frozen=True)
class Lesson:
    """A model that knows the digits a little, what ten devices learn from there, and what three of them do by lies."""

    base: GlobalModel
    honest: list[Tensors]
    flipped: list[Tensors]

    def of(self, attack: Attack) -> list[Tensors]:
        """What all ten learned, the last three perhaps from wrong labels."""
        return self.honest[:HONEST] + (self.flipped if attack.kind == "label-flip" else self.honest[HONEST:])


@pytest.fixture(scope="module")
def lesson() -> Lesson:
    fresh = GlobalModel.fresh(SMALL.spec, JOB.seed)
    first = learned(fresh, device_pictures(*range(HONEST)), 4, 0)
    total = PartialSum(SMALL.spec)
    header = Header(SMALL.spec, "fp32", str(W8A8), Content.DELTA, PICTURES)
    total.add(read(encode(header, first, np.random.default_rng(0))), 1)
    base = total.finish(fresh)
    flip = Attack("label-flip")
    pictures = [device_pictures(index) for index in range(HONEST + LIARS)]
    honest = [learned(base, each, 2, seed) for seed, each in enumerate(pictures)]
    wrong = [learned(base, flip.pictures(each, SMALL.classes), 2, seed) for seed, each in enumerate(pictures[HONEST:])]
    return Lesson(base, honest, wrong)


def sent(lesson: Lesson, attack: Attack, index: int, offer: Offer) -> bytes:
    """The payload of one device."""
    header = Header(offer.architecture, offer.recipe, offer.precision, Content.DELTA, PICTURES, offer.codec_seed)
    rng, tensors = np.random.default_rng(index), lesson.of(attack)[index]
    if index < HONEST:
        return encode(header, tensors, rng)
    return attack.payload(encode(header, attack.tensors(tensors, rng), rng))


def opened(open_fleet: Opener, lesson: Lesson, folder: Path, **job: Any) -> Fleet:
    """A fleet that starts from the lesson's model, its first round open."""
    start = folder / "start.bf"
    start.write_bytes(base_payload(lesson.base, [W8A8], "fp32", seed=0))
    fleet = open_fleet(replace(JOB, recipe="fp32", precisions=(W8A8,), **job), start=start)
    fleet.connected(*NAMES, samples=PICTURES)
    fleet.run()
    return fleet


def attacked(open_fleet: Opener, lesson: Lesson, folder: Path, attack: Attack, **job: Any) -> Fleet:
    """A fleet whose first round is merged."""
    fleet = opened(open_fleet, lesson, folder, **job)
    for index, phone in enumerate(fleet.handsets.values()):
        offer = phone.offer()
        phone.upload(offer, sent(lesson, attack, index, offer))
    fleet.run()
    assert fleet.state() == "announced"
    return fleet


def pull(fleet: Fleet, lesson: Lesson, attack: Attack) -> float:
    """How far the model was drawn from what honest devices learned to what liars say: 0.3 by the plain mean."""
    told = lesson.of(attack)
    lies = [attack.tensors(each, np.random.default_rng(0)) for each in told[HONEST:]]
    along = whole = 0.0
    for name, values in fleet.model().shared.items():
        honest = np.mean([update[name] for update in told[:HONEST]], axis=0)
        lie = np.mean([update[name] for update in lies], axis=0) - honest
        along += float(((values - lesson.base.shared[name] - honest) * lie).sum())
        whole += float(np.square(lie).sum())
    return along / whole


BOTH = ("clip:median+trimmed:0.3", "multi-krum:0.3")


@pytest.mark.parametrize(
    ("text", "ways", "most"),
    [
        ("sign-flip:4:0.3", BOTH, 0.15),
        ("scale:10:0.3", BOTH, 0.1),
        ("label-flip:0.3", BOTH[1:], 0.15),  # value by value, what wrong labels teach is hardly unusual
    ],
)
def test_liars_draw_the_mean_to_them_and_a_robust_rule_hardly(
    text: str, ways: tuple[str, ...], most: float, lesson: Lesson, open_fleet: Opener, tmp_path: Path
) -> None:
    attack = Attack.parse(text)
    plain = attacked(open_fleet, lesson, tmp_path, attack)
    assert pull(plain, lesson, attack) == pytest.approx(0.3, abs=1e-4)
    for way in ways:
        drawn = pull(attacked(open_fleet, lesson, tmp_path, attack, merge=way), lesson, attack)
        assert abs(drawn) < most, way


@pytest.mark.parametrize("way", ["mean", "multi-krum:0.3"])
def test_numbers_that_are_none_are_refused_at_the_door(
    way: str, lesson: Lesson, open_fleet: Opener, tmp_path: Path
) -> None:
    fleet = attacked(open_fleet, lesson, tmp_path, Attack.parse("nan:0.3"), merge=way)
    assert fleet.accepted() == NAMES[:HONEST]
    assert {row.refusal for row in fleet.rows(Update) if not row.accepted} == {"not-finite"}
    assert all(np.isfinite(values).all() for values in fleet.model().shared.values())


def test_liars_stand_out_in_the_journal_and_honest_devices_do_not(
    lesson: Lesson, open_fleet: Opener, tmp_path: Path
) -> None:
    fleet = attacked(open_fleet, lesson, tmp_path, Attack.parse("sign-flip:4:0.3"), merge="multi-krum:0.3")
    doubts = {row.device: row.doubt for row in fleet.rows(Update)}
    assert {device for device, doubt in doubts.items() if doubt} == set(NAMES[HONEST:])
    assert "deviations" in doubts[NAMES[-1]]
    assert all(row.norm > 0 for row in fleet.rows(Update))


def test_a_kill_while_merging_changes_no_bit_and_leaves_nothing(
    lesson: Lesson, open_fleet: Opener, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    attack = Attack.parse("sign-flip:4:0.3")
    whole = attacked(open_fleet, lesson, tmp_path, attack, merge="trimmed:0.3").model().to_bytes()
    fleet = opened(open_fleet, lesson, tmp_path, merge="trimmed:0.3")
    for index, phone in reversed(list(enumerate(fleet.handsets.values()))):  # another order, too
        offer = phone.offer()
        phone.upload(offer, sent(lesson, attack, index, offer))
    fleet.until("merging")
    files = _files(fleet.folder)

    def killed(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as broken:
        broken.setattr("aggregator.robust.settling.parted", killed)
        with pytest.raises(KeyboardInterrupt):
            rounds.advance(fleet.room)
    assert _files(fleet.folder) == files
    fleet.restart()
    fleet.run()
    assert fleet.model().to_bytes() == whole


def _files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file())


def test_too_few_updates_for_krum_abort_the_round_and_say_so(open_fleet: Opener) -> None:
    fleet = open_fleet(replace(JOB, merge="krum:1", min_devices=5, quorum=0.5))
    phones = fleet.connected(*"abcde")
    fleet.run()
    for phone in phones[:3]:
        phone.deliver_update()
    fleet.clock.pass_(101.0)
    fleet.run()
    (row,) = fleet.rows(Round)
    assert row.state == "aborted"
    assert "krum of 3 updates: expected at least 5" in row.note

"""Every picture is answered once and in order, by the model of its batch, whatever size that model reads."""

import numpy as np
from edge_support import PICTURES, SPEC, export
from PIL import Image

from edge.data import DataError
from edge.data.fit import fit_picture
from edge.inference.answers import Answer, Classifier, Skipped, softmax
from edge.inference.sources import Item
from edge.inference.tally import Tally
from edge.runtime import ModelSlot, Serving
from edge.session import proven, session_of
from export.bundle import export_model
from protocol import networks
from protocol.initial import initial_tensors
from protocol.precision import Precision

COLOUR = networks.parse("resnet18:width=0.0625,stem=3x3,input=3x48x48,classes=10")


def grey_and_colour() -> list[Serving]:
    precision = Precision.parse("W8A8")
    noise = np.random.default_rng(0).integers(0, 256, (4, *COLOUR.input_shape), dtype=np.uint8)
    tensors = initial_tensors(COLOUR, precision, 0)
    colour = export_model(COLOUR, precision, tensors, pictures_NCHW=noise, metadata={}).model
    made = []
    for version, (data, spec) in enumerate(((export(), SPEC), (colour, COLOUR.spec)), 1):
        slot = ModelSlot("00" * 32, version, spec, "W8A8")
        made.append(Serving(slot, proven(session_of(data), slot.network)))
    return made


def items(count: int) -> list[Item]:
    def item(number: int) -> Item:
        picture = Image.fromarray(PICTURES[number % 4, 0])
        return Item(f"frame {number}", lambda shape: fit_picture(picture, shape))

    return [item(number) for number in range(count)]


def test_a_swap_to_a_model_of_another_input_loses_no_picture() -> None:
    grey, colour = grey_and_colour()
    turns = iter([grey, colour, colour, grey, grey])
    classifier = Classifier(lambda: next(turns), lambda _: None, batch=3, top=2)
    batches = list(classifier.answers(iter(items(10))))
    answers = [one for batch in batches for one in batch if isinstance(one, Answer)]
    assert [one.picture for one in answers] == [f"frame {number}" for number in range(10)]
    assert [one.slot.version for one in answers] == [1] * 3 + [2] * 6 + [1]
    for number, one in enumerate(answers):
        serving = grey if one.slot.version == 1 else colour
        picture = fit_picture(Image.fromarray(PICTURES[number % 4, 0]), serving.slot.network.input_shape)
        expected = softmax(serving.session.infer(picture[None]))[0]
        assert [guess.label for guess in one.guesses] == np.argsort(-expected)[:2].tolist()
        assert np.allclose([guess.confidence for guess in one.guesses], np.sort(expected)[::-1][:2])


def test_what_cannot_be_read_keeps_its_place_and_the_tally_counts_inferences() -> None:
    def damaged(_: object) -> np.ndarray:
        raise DataError("b: damaged")

    grey, _ = grey_and_colour()
    mixed = [items(1)[0], Item("b", damaged), *items(2), Item("b", damaged)]
    tally = Tally()
    for batch in Classifier(lambda: grey, lambda _: None, batch=2, top=99).answers(iter(mixed)):
        tally.add(batch)
        assert all(one == Skipped("b", "b: damaged") or len(one.guesses) == 10 for one in batch)
    summary = tally.summary()
    assert (summary.pictures, summary.skipped, summary.models[0].pictures) == (3, 2, 3)


def test_softmax_by_hand_and_without_overflow() -> None:
    logits_NC = np.array([[0, np.log(3)], [1000, 1000]], np.float32)
    assert np.allclose(softmax(logits_NC), [[0.25, 0.75], [0.5, 0.5]])

"""What a broker lets a device do, topic by topic: the table that every broker's access list is written from.

The aggregator may do everything below its fleet's root; what is not here nobody else may.
"""

from dataclasses import dataclass
from enum import StrEnum
from typing import Final


class Act(StrEnum):
    """What a device does with a topic."""

    PUBLISH = "publish"
    SUBSCRIBE = "subscribe"


@dataclass(frozen=True, slots=True)
class Right:
    """One line.

    Attributes:
        act: what is allowed.
        levels: of the topic below the fleet's root; `ID` stands for the device's own name, `ANY` for one level.
    """

    act: Act
    levels: tuple[str, ...]

    def filter(self, root: str, own: str, any_level: str = "+") -> str:
        """The topic filter, with `own` where the device's name stands: the name, or a broker's word for it."""
        words = {ID: own, ANY: any_level}
        return "/".join((root, *(words.get(level, level) for level in self.levels)))


ID: Final = "<id>"
ANY: Final = "+"

DEVICE_RIGHTS: Final = (
    Right(Act.SUBSCRIBE, ("srv", "state")),
    Right(Act.SUBSCRIBE, ("srv", "round")),
    Right(Act.SUBSCRIBE, ("srv", "round", ANY)),
    Right(Act.PUBLISH, ("d", ID, "state")),
    Right(Act.PUBLISH, ("d", ID, "birth")),
    Right(Act.PUBLISH, ("d", ID, "tele")),
    Right(Act.PUBLISH, ("d", ID, "rsp", ANY)),
    Right(Act.SUBSCRIBE, ("d", ID, "offer")),
    Right(Act.SUBSCRIBE, ("d", ID, "rx", ANY)),
    Right(Act.PUBLISH, ("up", ANY, ID, ANY, "m")),
    Right(Act.PUBLISH, ("up", ANY, ID, ANY, "c", ANY)),
    Right(Act.SUBSCRIBE, ("model", ANY, ANY, ANY)),
)

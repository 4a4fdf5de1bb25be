"""From what files call a class to the index that the whole fleet uses for it."""

from collections.abc import Sequence

import numpy as np

from edge.data.dataset import DataError, Labels

Classes = int | tuple[str, ...] | None
"""What the fleet says: how many classes, their names in order, or nothing."""


def index_names(found: Sequence[str], classes: Classes, source: str) -> tuple[tuple[str, ...], dict[str, int]]:
    """Indices of classes found by name, such as folders.

    With names given, each is looked up. With a count, names that are numbers below it are their own index, and a
    complete set of other names is numbered in sorted order. With nothing, sorted order.

    Args:
        found: distinct names on this device.
        classes: what the fleet says.
        source: what to call the source in an error.

    Returns:
        The fleet's class names, and the index of each name found.

    Raises:
        DataError: a name has no place among the fleet's classes.
    """
    names = sorted(found)
    if isinstance(classes, tuple):
        strangers = [name for name in names if name not in classes]
        if strangers:
            raise DataError(f"{source}: class {strangers[0]!r} is not one of the fleet's: {', '.join(classes)}")
        return classes, {name: classes.index(name) for name in names}
    if classes is None or (len(names) == classes and not _are_numbers(names, classes)):
        return tuple(names), {name: index for index, name in enumerate(names)}
    if _are_numbers(names, classes):
        return tuple(map(str, range(classes))), {name: int(name) for name in names}
    raise DataError(
        f"{source}: classes {', '.join(names)} of a fleet with {classes}: expected all of them, names from 0 to"
        f" {classes - 1}, or the fleet's class names in the configuration"
    )


def check_labels(labels_N: Labels, classes: Classes, source: str) -> tuple[str, ...]:
    """The class names for labels that are already indices.

    Raises:
        DataError: a label is out of range.
    """
    low, high = int(labels_N.min()), int(labels_N.max())
    count = high + 1 if classes is None else classes if isinstance(classes, int) else len(classes)
    if low < 0 or high >= count:
        raise DataError(f"{source}: labels from {low} to {high}, expected 0 to {count - 1}")
    return classes if isinstance(classes, tuple) else tuple(map(str, range(count)))


def check_several(labels_N: Labels, classes: Classes, source: str) -> None:
    """One class alone is data only where the fleet has others.

    Raises:
        DataError: there is one class and the fleet's classes are not known.
    """
    distinct = np.unique(labels_N)
    if classes is None and len(distinct) < 2:
        raise DataError(
            f"{source}: every picture is of one class; expected two or more, or the fleet's classes in the"
            " configuration"
        )


def _are_numbers(names: Sequence[str], classes: int) -> bool:
    return all(name.isascii() and name.isdigit() and int(name) < classes for name in names)

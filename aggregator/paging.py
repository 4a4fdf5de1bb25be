"""Lists in pages: so many rows after the one shown last, in the order of a key that no two rows share.

The cursor holds that key, not a count: rows that come in or go between two pages move nothing, are shown once or, where
they come before the cursor, not at all. It is opaque: base64 of JSON today, whatever serves tomorrow.
"""

import base64
import binascii
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final, Generic, TypeVar

from sqlalchemy import ColumnElement, select, tuple_
from sqlalchemy.orm import InstrumentedAttribute, Session

T = TypeVar("T")
V = TypeVar("V")

USUAL: Final = 100
LARGEST: Final = 1000
"""Rows in an answer at most: a second of work for the database, a megabyte for the reader."""


class BadCursor(Exception):
    """A cursor that no page of this list has given."""


@dataclass(frozen=True, slots=True)
class Window:
    """Which part of a list is asked for: at most `limit` rows, after those that `cursor` stands for; None for all."""

    limit: int | None = None
    cursor: str = ""


ALL: Final = Window()


@dataclass(frozen=True, slots=True)
class Page(Generic[T]):
    """Rows, and the cursor for those that follow; empty after the last."""

    rows: list[T]
    next: str = ""

    def map(self, change: Callable[[T], V]) -> "Page[V]":
        """The same page of other things."""
        return Page([change(row) for row in self.rows], self.next)


def page_of(
    session: Session,
    table: type[T],
    meant: Sequence[ColumnElement[bool]],
    key: Sequence[InstrumentedAttribute[Any]],
    window: Window,
    *,
    newest_first: bool = False,
) -> Page[T]:
    """Rows of `table` that are meant and lie in the window.

    Args:
        session: where to read.
        table: of the store.
        meant: conditions that rows must meet.
        key: columns that order the rows and that no two share all of.
        window: which part.
        newest_first: whether the largest key comes first.

    Raises:
        BadCursor: the window's cursor is of no such list.
    """
    query = select(table).where(*meant)
    if window.cursor:
        last = tuple_(*_key_in(window.cursor, key))
        query = query.where(tuple_(*key) < last if newest_first else tuple_(*key) > last)
    query = query.order_by(*(column.desc() if newest_first else column for column in key))
    if window.limit is None:
        return Page(list(session.scalars(query)))
    rows = list(session.scalars(query.limit(window.limit + 1)))
    if len(rows) <= window.limit:
        return Page(rows)
    shown = rows[: window.limit]
    return Page(shown, _cursor([getattr(shown[-1], column.key) for column in key]))


def _cursor(key: list[Any]) -> str:
    return base64.urlsafe_b64encode(json.dumps(key, separators=(",", ":")).encode()).rstrip(b"=").decode()


def _key_in(cursor: str, key: Sequence[InstrumentedAttribute[Any]]) -> list[Any]:
    """The key that a cursor holds, if it is one of these columns."""
    try:
        values = json.loads(base64.urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4)))
    except (binascii.Error, ValueError) as error:
        raise BadCursor(_EXPECTED) from error
    kinds = [column.type.python_type for column in key]
    if not isinstance(values, list) or [_kind(value) for value in values] != kinds:
        raise BadCursor(_EXPECTED)
    return values


def _kind(value: Any) -> type[Any] | None:
    """The type of a key's part; None of what no key of ours is and no database can hold."""
    strange = (isinstance(value, int) and value.bit_length() > 63) or (isinstance(value, str) and not value.isascii())
    return None if strange else type(value)


_EXPECTED: Final = "cursor: expected one from the Link header of this list's page before, unchanged"

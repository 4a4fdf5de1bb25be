"""Pages of lists at the HTTP door."""

from typing import Annotated, Any, TypeVar
from urllib.parse import urlencode

from fastapi import Depends, Query, Request, Response

from aggregator.paging import LARGEST, USUAL, Page, Window

T = TypeVar("T")

NewestFirst = Annotated[bool, Query(description="the other way round")]


class Pager:
    """A list's page as it was asked for; says in the header Link (RFC 8288) where the next one is."""

    def __init__(
        self,
        request: Request,
        response: Response,
        limit: Annotated[int, Query(ge=1, le=LARGEST, description="rows at most")] = USUAL,
        cursor: Annotated[str, Query(max_length=1000, description="of the page before, from its Link header")] = "",
    ) -> None:
        self.window = Window(limit, cursor)
        self._request, self._response = request, response

    def show(self, page: Page[T]) -> list[T]:
        """The rows of `page`."""
        if page.next:
            query = dict(self._request.query_params) | {"limit": self.window.limit, "cursor": page.next}
            self._response.headers["Link"] = f'<?{urlencode(query)}>; rel="next"'
        return page.rows


ThePager = Annotated[Pager, Depends()]
_LINK = {"Link": {"description": 'the next page, rel="next", relative to this one', "schema": {"type": "string"}}}
PAGED: dict[int | str, dict[str, Any]] = {200: {"headers": _LINK}}

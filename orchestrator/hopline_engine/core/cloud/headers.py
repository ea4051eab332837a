"""Which headers people may choose for the requests of tasks: of a task itself, and of a queue's target."""

import re
from collections.abc import Iterable
from typing import Final

from hopline_engine.core.cloud.errors import invalid

LARGEST_HEADERS: Final = 80 * 1024
_TOKEN: Final = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_IN_VALUE: Final = re.compile(r"[\r\n\0]")


def check_headers(field: str, headers: Iterable[tuple[str, str]]) -> None:
    """Return if headers can be sent; *field* names where they are in what was asked for.

    Raises:
        CloudTasksError: they are too large, or a name or value is not possible.
    """
    given = list(headers)
    if sum(len(key.encode()) + len(value.encode()) for key, value in given) >= LARGEST_HEADERS:
        raise invalid(f"{field} must be less than 80KB.")
    for key, value in given:
        if not _TOKEN.fullmatch(key):
            raise invalid(f"{field} has a key that is not the name of a header.")
        if _IN_VALUE.search(value):
            raise invalid(f"{field} has a value that contains a line end or NUL.")


def is_ours(name: str) -> bool:
    """Return whether a header is the service's to say; what people give for it is passed over.

    >>> is_ours("X-Google-Trace"), is_ours("X-Trace")
    (True, False)
    """
    lower = name.lower()
    return lower in {"host", "content-length"} or lower.startswith(("x-google-", "x-appengine-"))

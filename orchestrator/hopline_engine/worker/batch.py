"""Several elements of a map in one request: one attempt each, one after the other, and one answer with all of theirs.

What one element does (fail, hang, print) is its own affair, as if it had come alone.
"""

from collections.abc import Awaitable, Callable, Iterable
from dataclasses import replace
from datetime import UTC, datetime
from typing import Final

import msgspec

from hopline import Context
from hopline_engine.worker.execute import Answer, Attempt, Runtime, Served

ANSWERS_BYTES: Final = 524_288
"""When the answers have so many bytes, the engine is given them, and sends the elements that are left once more."""


class Element(msgspec.Struct, frozen=True):
    """One element as the engine sends it."""

    headers: dict[str, str]
    """What the headers of its own request would have been."""
    seconds: float
    """How long it may take once it has begun."""
    arguments: msgspec.Raw

    def encoded_headers(self) -> dict[bytes, bytes]:
        """Return the headers as those of a request are."""
        return {name.encode(): value.encode() for name, value in self.headers.items()}


elements_in: Final = msgspec.json.Decoder(list[Element]).decode


async def run_batch(
    step: Served,
    elements: Iterable[tuple[tuple[Context, float], Element]],
    runtime: Runtime,
    gone: Callable[[], Awaitable[object]],
) -> Answer | None:
    """Run the elements, each with its context and its last deadline, and return their answers in order.

    There may be fewer answers than elements: those that are left were not begun. There is none when *gone* returned
    before the first of them was.
    """
    answers: list[bytes] = []
    room = ANSWERS_BYTES
    for (context, last), element in elements:
        deadline = min(last, runtime.now() + element.seconds)
        own = replace(context, deadline=datetime.fromtimestamp(deadline, UTC))
        answer = await Attempt(step, bytes(element.arguments), own, deadline, runtime).run(gone)
        if answer is None:
            return None
        answers.append(b'{"status":%d,"answer":%b}' % answer)
        room -= len(answers[-1])
        if room <= 0:
            break
    return Answer(200, b"[" + b",".join(answers) + b"]")

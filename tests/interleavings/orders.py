"""The orders of two transactions' statements: which there are, and which of them have to be carried out.

Two orders that differ in nothing but two statements that go one right after the other, one of each side, and that may
change places (``effects``), end in the same way. So of any order in which a statement of side 1 is followed by one of
side 0 that could as well have gone before it, only the one with the two the other way round is carried out. That one
comes before it in the dictionary, and there are finitely many: whatever order one begins with, changing such places
again and again ends with one that is carried out and ends in the same way. Of those that are alike by an unchanging
relation between statements, that is exactly one. No such pair are statements of which the first had to wait, or of
which the second could not have gone before the first: these are never left out.

To let side 1 go instead of a statement of side 0 is of use only if that statement has to come after one that side 1
then comes to before its end. What it comes to is known from an order that was carried out, if the statement of side 0
may change places with all that follows of side 1 there. Where it is not known, an order may turn out to be idle: it was
carried out, and is like another one.
"""

from collections import deque
from collections.abc import Awaitable, Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from tests.interleavings.effects import Effect, are_independent

Side = int
"""Which of the two transactions: 0 or 1."""


class ElsewhereError(Exception):
    """The same beginning led elsewhere this time: a connection knew something that it had to ask for before."""


class Statement(NamedTuple):
    """What a side does next."""

    text: str
    effect: Effect


class Choice(NamedTuple):
    """A moment at which one side or both could go on."""

    could: tuple[Side, ...]
    chosen: Side
    previous: Side | None
    statement: Statement
    """That went."""
    is_late: bool = False
    """Whether side 0 could as well have gone on before side 1 did what it has just done."""
    has_waited: bool = False
    """Whether the statement had to wait for a lock."""

    @property
    def is_switch(self) -> bool:
        """Whether the other side was let go although the previous one could go on."""
        return self.previous in self.could and self.chosen != self.previous


@dataclass(slots=True)
class Order:
    """An order in which two transactions were carried out."""

    goes_on: bool = True
    """Whether who went last goes on as long as it can; otherwise side 0 goes whenever it is of use."""
    choices: list[Choice] = field(default_factory=list)

    @property
    def sides(self) -> str:
        """The sides in turn."""
        return "".join(str(choice.chosen) for choice in self.choices)

    @property
    def is_serial(self) -> bool:
        """Whether one side had ended when the other one began."""
        in_turn = "".join(sorted(self.sides))
        return self.sides in (in_turn, in_turn[::-1])

    @property
    def waits(self) -> int:
        """How often a statement had to wait for a lock."""
        return sum(choice.has_waited for choice in self.choices)

    @property
    def is_idle(self) -> bool:
        """Whether it is like one in which side 0 went earlier."""
        return any(choice.is_late and choice.chosen == 0 for choice in self.choices)

    def choose(self, could: tuple[Side, ...], pending: Sequence[Statement], beginning: Sequence[Side]) -> Side:
        """Return which side goes on.

        Args:
            could: the sides that can go on; at least one.
            pending: what each side does next, if it can go on.
            beginning: of the sides in turn.

        Raises:
            ElsewhereError: the side that the beginning says cannot go on.
        """
        last = self.choices[-1] if self.choices else None
        previous = None if last is None else last.chosen
        is_late = 0 in could and last is not None and _may_change_places(last, pending[0])
        if len(self.choices) < len(beginning):
            chosen = beginning[len(self.choices)]
            if chosen not in could:
                raise ElsewhereError
        elif self.goes_on and previous is not None and previous in could:
            chosen = previous
        else:
            chosen = could[-1] if is_late else could[0]
        self.choices.append(Choice(could, chosen, previous, pending[chosen], is_late))
        return chosen

    def note_wait(self) -> None:
        """Say that the last statement has to wait for a lock."""
        self.choices[-1] = self.choices[-1]._replace(has_waited=True)


def _may_change_places(last: Choice, statement: Statement) -> bool:
    """Return whether a statement of side 0 could have gone before the last one, of side 1."""
    if last.chosen == 0 or 0 not in last.could or last.has_waited:
        return False
    return are_independent(last.statement.effect, statement.effect)


class Extent(NamedTuple):
    """Which orders are carried out."""

    switches: float | None = None
    """How often at most the other side is let go although the previous one could go on. All of these are carried out,
    like others or not; if it is left out, all that are not like others."""
    most: int | None = None
    """How many at most, together with those that turn out to be like others."""


@dataclass(slots=True)
class Tally:
    """How many orders were carried out."""

    orders: int = 0
    """No two of which are alike."""
    idle: int = 0
    """That are like others."""
    left: int = 0
    """Beginnings of orders that were not carried out any more."""


def beginnings(order: Order, length: int) -> Iterator[list[Side]]:
    """Yield the beginnings of the orders that are not like *order*, nor like one another, and differ from it first
    after the first *length* turns.
    """
    rest: list[Effect] | None = []
    """What side 1 does to its end if it goes on alone; ``None`` if that is not known."""
    for number in reversed(range(length, len(order.choices))):
        choice = order.choices[number]
        effect = choice.statement.effect
        passes = rest is not None and not choice.has_waited and all(are_independent(effect, each) for each in rest)
        is_of_use = not choice.is_late if choice.chosen == 1 else not passes
        if is_of_use and len(choice.could) == 2:
            yield [*(one.chosen for one in order.choices[:number]), 1 - choice.chosen]
        if choice.chosen == 1:
            rest = None if rest is None or choice.has_waited else [effect, *rest]
        elif not passes or (rest and 1 not in choice.could):
            rest = None


def switching(order: Order, length: int, switches: float) -> Iterator[list[Side]]:
    """Yield the beginnings of all orders that differ from *order* first after the first *length* turns.

    In none the other side is let go more than *switches* times although the previous one could go on.
    """
    made = 0
    for number, choice in enumerate(order.choices):
        if number >= length and len(choice.could) == 2:
            other = choice._replace(chosen=1 - choice.chosen)
            if made + other.is_switch <= switches:
                yield [*(one.chosen for one in order.choices[:number]), other.chosen]
        made += choice.is_switch


async def all_orders(carry_out: Callable[[Sequence[Side]], Awaitable[Order]], extent: Extent) -> Tally:
    """Carry out orders, each once; *carry_out* is given how one begins.

    Raises:
        ElsewhereError: the same turns led to another statement.
    """
    tally = Tally()
    pending: deque[tuple[list[Side], list[str]]] = deque([([], [])])
    while pending and (extent.most is None or tally.orders + tally.idle < extent.most):
        beginning, expected = pending.popleft()
        order = await carry_out(beginning)
        texts = [choice.statement.text for choice in order.choices]
        if texts[: len(expected)] != expected:
            raise ElsewhereError
        if extent.switches is None:
            others = beginnings(order, len(beginning))
            tally.idle += order.is_idle
            tally.orders += not order.is_idle
        else:
            others = switching(order, len(beginning), extent.switches)
            tally.orders += 1
        pending.extend((other, texts[: len(other) - 1]) for other in others)
    tally.left = len(pending)
    return tally

"""Public names: run ids people type, step names with their element, idempotency keys."""

import re
from typing import Final

from hopline_engine.core.model import WHOLE, RunId

_ALPHABET: Final = "0123456789abcdefghjkmnpqrstvwxyz"
_BITS: Final = 50
_MASK: Final = (1 << _BITS) - 1
_FACTOR: Final = 0x2_6B79_1F3A_8D45 & _MASK | 1
_INVERSE: Final = pow(_FACTOR, -1, 1 << _BITS)
_ELEMENT: Final = re.compile(r"(?P<node>.+?)\[(?P<item>[0-9]{1,9})\]", re.DOTALL)


def public_id(run: RunId) -> str:
    """Return the public id of a run: ``r_`` and ten characters, one to one with the number.

    Run numbers grow with time, so neighbours share their first digits; multiplying by an odd constant scatters
    them, so that a few first characters name a run.

    >>> public_id(RunId(1)) != public_id(RunId(2)) and run_id(public_id(RunId(77)))
    77
    """
    mixed = run * _FACTOR & _MASK
    return "r_" + "".join(_ALPHABET[mixed >> shift & 31] for shift in range(_BITS - 5, -1, -5))


def run_id(public: str) -> RunId | None:
    """Return the run that a full public id names, or ``None`` if the text is not one."""
    digits = public.removeprefix("r_")
    if len(digits) != _BITS // 5 or any(digit not in _ALPHABET for digit in digits):
        return None
    mixed = 0
    for digit in digits:
        mixed = mixed << 5 | _ALPHABET.index(digit)
    return RunId(mixed * _INVERSE & _MASK)


def step_name(node: str, item: int) -> str:
    """Return what people call a step run: ``totals``, or ``totals[3]`` for an element of a map."""
    return node if item == WHOLE else f"{node}[{item}]"


def parse_step_name(name: str) -> tuple[str, int]:
    """Return node and item of a step name.

    >>> parse_step_name("totals[3]"), parse_step_name("totals")
    (('totals', 3), ('totals', -1))
    """
    match = _ELEMENT.fullmatch(name)
    return (match["node"], int(match["item"])) if match else (name, WHOLE)


def idempotency_key(run: str, node: str, item: int) -> str:
    """Return the key that every attempt of one step run sends."""
    return f"{run}/{node}" if item == WHOLE else f"{run}/{node}/{item}"

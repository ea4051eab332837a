"""Whether a value with results in it can be given where a schema is expected.

Only what is certain counts as a misfit: a union passes if one member may, and numbers pass for each other. Of a choice
all arms have to pass.
"""

from collections.abc import Mapping

from hopline.shape import NAMES, Shape
from hopline.trace import is_symbol, reference_of

_Seen = frozenset[tuple[int, int]]


def misfit(value: object, want: Shape) -> str | None:
    """Return why *value*, a symbol or something with symbols in it, is not what *want* says; None when it may be."""
    if is_symbol(value):
        return disagreement(reference_of(value).shape, want)
    if isinstance(value, str):
        return disagreement(Shape({"type": "string"}), want)
    if isinstance(value, list | tuple):
        return _list_misfit(list(value), want)
    return _dict_misfit(value, want) if isinstance(value, dict) else None


def disagreement(have: Shape, want: Shape) -> str | None:
    """Return why no value of shape *have* can be given where *want* is expected; None when one may.

    Of the arms of a choice each one must fit, since each may be what is given.
    """
    arms = have.arms()
    reasons = (_disagreement(arm, want, frozenset()) for arm in arms)
    reason = next((reason for reason in reasons if reason), None)
    return f"in one arm, {reason}" if reason and len(arms) > 1 else reason


def can_be_formatted(shape: Shape, spec: str) -> bool:
    """Return whether a value of some shape may be formatted as *spec* says."""
    kinds = shape.kinds()
    if kinds is None:
        return True
    samples: list[object] = [{"string": "", "integer": 0, "number": 0.0}.get(kind) for kind in kinds]
    return any(sample is not None and _accepts(sample, spec) for sample in samples)


def _list_misfit(values: list[object], want: Shape) -> str | None:
    if want.element() is None:
        return f"it is a list, not {want.words()}"
    for index, value in enumerate(values):
        place = want.at(index)
        problem = misfit(value, place[1]) if place else f"there is no place for it in {want.words()}"
        if problem:
            return f"at {index}, {problem}"
    return None


def _dict_misfit(values: dict[object, object], want: Shape) -> str | None:
    kinds = want.kinds()
    if kinds is not None and "object" not in kinds:
        return f"it is an object, not {want.words()}"
    for key, value in values.items():
        place = want.at(str(key))
        problem = place and misfit(value, place[1])
        if problem:
            return f"in {key!r}, {problem}"
    return None


def _disagreement(have: Shape, want: Shape, seen: _Seen) -> str | None:
    pair = (id(have.schema), id(want.schema))
    if pair in seen:  # recursive types
        return None
    seen |= {pair}
    wanted = list(want.options())
    reasons = [_against_all(option, wanted, seen) for option in have.options()]
    return reasons[0] if reasons and None not in reasons else None


def _against_all(have: Shape, wanted: list[Shape], seen: _Seen) -> str | None:
    reasons = [_against(have, want, seen) for want in wanted]
    if not reasons or None in reasons:
        return None
    if len(reasons) == 1:
        return reasons[0]
    return f"it is {have.words()}, not {' or '.join(sorted({want.words() for want in wanted}))}"


def _against(have: Shape, want: Shape, seen: _Seen) -> str | None:
    ours, theirs = have.kinds(), want.kinds()
    if ours is None or theirs is None:
        return None
    if not _alike(ours) & _alike(theirs):
        return f"it is {have.words()}, not {want.words()}"
    if ours == theirs == {"object"}:
        return _fields_against(have, want, seen)
    return _items_against(have, want, seen) if ours == theirs == {"array"} else None


def _alike(kinds: frozenset[str]) -> frozenset[str]:
    # 1.0 is a float in Python and may pass for an integer in JSON: not certain enough to refuse.
    return frozenset("number" if kind == "integer" else kind for kind in kinds)


def _items_against(have: Shape, want: Shape, seen: _Seen) -> str | None:
    ours, theirs = have.keyword("items", None), want.keyword("items", None)
    if not isinstance(ours, Mapping) or not isinstance(theirs, Mapping):
        return None
    reason = _disagreement(have.sub(ours), want.sub(theirs), seen)
    return reason and f"in each element, {reason}"


def _fields_against(have: Shape, want: Shape, seen: _Seen) -> str | None:
    ours, theirs = have.keyword("properties", {}), want.keyword("properties", {})
    if not ours or have.keyword("additionalProperties", False) is not False:
        return None
    names = {key: name for name, key in want.keyword(NAMES, {}).items()}
    for key in want.keyword("required", []):
        if key not in ours and names.get(key) not in ours:
            return f"it has no field {names.get(key, key)!r}"
    for key in sorted(ours.keys() & theirs.keys()):
        reason = _disagreement(have.sub(ours[key]), want.sub(theirs[key]), seen)
        if reason:
            return f"in its field {key!r}, {reason}"
    return None


def _accepts(sample: object, spec: str) -> bool:
    try:
        format(sample, spec)
    except ValueError:
        return False
    return True

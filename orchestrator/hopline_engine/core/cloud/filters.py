"""Filters of listings, in the part of the logging filter language that fields of queues need; and filters of leases.

>>> is_wanted = parse_filter('state = PAUSED OR rate_limits.max_dispatches_per_second < 5')
>>> is_wanted({"state": "RUNNING", "rate_limits": {"max_dispatches_per_second": 1.0}})
True
"""

import re
from collections.abc import Callable, Mapping
from typing import Any, Final, NamedTuple

from hopline_engine.core.cloud.errors import invalid

Wanted = Callable[[Mapping[str, Any]], bool]

_LEXEME: Final = re.compile(
    r"""\s*(?:(?P<op><=|>=|!=|[<>=:()])|"(?P<quoted>(?:[^"\\]|\\.)*)"|(?P<word>[^\s<>=!:()"]+))""", re.DOTALL
)
_COMPARED: Final[Mapping[str, Callable[[float | str, float | str], bool]]] = {
    "<": lambda a, b: a < b,  # type: ignore[operator]
    "<=": lambda a, b: a <= b,  # type: ignore[operator]
    ">": lambda a, b: a > b,  # type: ignore[operator]
    ">=": lambda a, b: a >= b,  # type: ignore[operator]
}
_LONGEST: Final = 10_000
_DEEPEST: Final = 50

TAG_FUNCTION: Final = "tag_function=oldest_tag()"


class _Lexeme(NamedTuple):
    kind: str
    text: str


def parse_filter(text: str) -> Wanted:
    """Return what decides whether fields are wanted; an empty filter wants everything.

    Raises:
        CloudTasksError: it is not written in the language.
    """
    if not text.strip():
        return lambda _: True
    if len(text) > _LONGEST:
        raise invalid("The filter is too long.")
    parser = _Parser(_lexemes(text))
    wanted = parser.alternatives(0)
    parser.expect_end()
    return wanted


def parse_tag(text: str) -> str | None:
    """Return the tag that a lease asks for; ``None`` for any.

    Raises:
        CloudTasksError: the filter is none of the forms that are known.
    """
    name, sign, value = text.strip().partition("=")
    if name.strip() != "tag" or not sign:
        raise invalid("The filter must be `tag=<tag>` or `tag_function=oldest_tag()`.")
    value = value.strip()
    if len(value) >= 2 and value[0] == value[-1] == '"':
        return re.sub(r"\\(.)", r"\1", value[1:-1])
    return value


def asks_for_oldest_tag(text: str) -> bool:
    """Return whether a lease asks for tasks with the tag of the oldest."""
    return "".join(text.split()) == TAG_FUNCTION


def _lexemes(text: str) -> list[_Lexeme]:
    found: list[_Lexeme] = []
    at = 0
    while at < len(text.rstrip()):
        match = _LEXEME.match(text, at)
        if match is None:
            raise invalid(f"The filter is not valid at character {at}.")
        kind = match.lastgroup or ""
        value = match[kind]
        found.append(_Lexeme(kind, re.sub(r"\\(.)", r"\1", value) if kind == "quoted" else value))
        at = match.end()
    return found


class _Parser:
    def __init__(self, lexemes: list[_Lexeme]) -> None:
        self._lexemes = lexemes
        self._at = 0

    def alternatives(self, depth: int) -> Wanted:
        """Read terms with OR between them."""
        terms = [self._sequence(depth)]
        while self._take_word("OR"):
            terms.append(self._sequence(depth))
        return lambda fields: any(term(fields) for term in terms)

    def expect_end(self) -> None:
        if self._at < len(self._lexemes):
            raise invalid(f"The filter is not valid at '{self._lexemes[self._at].text}'.")

    def _sequence(self, depth: int) -> Wanted:
        factors = [self._factor(depth)]
        while self._peek() not in (None, _Lexeme("op", ")"), _Lexeme("word", "OR")):
            self._take_word("AND")
            factors.append(self._factor(depth))
        return lambda fields: all(factor(fields) for factor in factors)

    def _factor(self, depth: int) -> Wanted:
        if depth > _DEEPEST:
            raise invalid("The filter is nested too deeply.")
        if self._take_word("NOT"):
            negated = self._factor(depth + 1)
            return lambda fields: not negated(fields)
        if self._peek() == _Lexeme("op", "("):
            self._at += 1
            inner = self.alternatives(depth + 1)
            if self._next().text != ")":
                raise invalid("The filter lacks a closing parenthesis.")
            return inner
        return self._comparison()

    def _comparison(self) -> Wanted:
        path, sign, value = self._next(), self._next(), self._next()
        if path.kind == "op" or sign.kind != "op" or sign.text in "()" or value.kind == "op":
            raise invalid("The filter must compare fields with values.")
        names = [_snake(name) for name in path.text.split(".")]
        return lambda fields: _compares(_find(fields, names), sign.text, value)

    def _peek(self) -> _Lexeme | None:
        return self._lexemes[self._at] if self._at < len(self._lexemes) else None

    def _next(self) -> _Lexeme:
        found = self._peek()
        if found is None:
            raise invalid("The filter ends too early.")
        self._at += 1
        return found

    def _take_word(self, word: str) -> bool:
        if self._peek() == _Lexeme("word", word):
            self._at += 1
            return True
        return False


def _snake(name: str) -> str:
    return re.sub(r"(?<!^)([A-Z])", r"_\1", name).lower()


def _find(fields: Any, names: list[str]) -> Any:
    for name in names:
        fields = fields.get(name) if isinstance(fields, Mapping) else None
    return fields


def _compares(found: Any, sign: str, value: _Lexeme) -> bool:
    if value == _Lexeme("word", "*") and sign in (":", "="):
        return found is not None
    if found is None or isinstance(found, (Mapping, list)):
        return sign == "!="
    left, right = _alike(found, value.text)
    match sign:
        case "=":
            return left == right
        case "!=":
            return left != right
        case ":":
            return str(right).lower() in str(left).lower() if isinstance(left, str) else left == right
        case _:
            return _COMPARED[sign](left, right)


def _alike(found: Any, text: str) -> tuple[float | str, float | str]:
    """Return both as numbers if they are, else both as text without regard to case."""
    if isinstance(found, (int, float)):
        try:
            return float(found), float(text.removesuffix("s"))
        except ValueError:
            pass
    return str(found).lower(), text.lower()

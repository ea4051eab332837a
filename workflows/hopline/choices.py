"""Choices of one workflow body while it is traced: which arm is being traced, and the nodes that choices become.

Every node that is made in an arm gets the guards of all arms around it. What was made in an arm can be used inside of
it alone, since outside nobody knows whether it is there.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple

from hopline.canonical_schema import redirected
from hopline.closing import failure_shape
from hopline.conditions import Claim, Condition, claim_of, incomparable, is_condition, literal_shape
from hopline.control import takes_failure
from hopline.definition import Expr, Json, Kind, Node
from hopline.expressions import is_literal, literal_value
from hopline.policy import Policy, named_failures
from hopline.shape import Shape
from hopline.trace import Reference, Symbol, is_symbol, reference_of

if TYPE_CHECKING:
    from hopline.wiring import BodyTrace


@dataclass(frozen=True, slots=True, eq=False)
class OpenArm:
    """An arm that is being traced."""

    word: str
    guards: tuple[Json, ...]
    is_inside: bool
    """Whether its nodes are inside of it, so that it decides what their failures mean."""
    steps: list[str] = field(default_factory=list)


class _Result(NamedTuple):
    """What an arm returned."""

    expr: Expr
    shape: Shape
    arm: OpenArm


class Choices:
    """Conditions and choices of one body; see ``trace.Control``."""

    def __init__(self, body: "BodyTrace") -> None:
        self._body = body
        self._open: list[OpenArm] = []
        self._made_in: dict[str, tuple[OpenArm, ...]] = {}

    # ------------------------------------------------------------------ arms

    def guards(self) -> list[Json]:
        """Return the guards of a node that is made now."""
        return [guard for arm in self._open for guard in arm.guards]

    def note(self, node: str) -> None:
        """Note that a node was made."""
        self._made_in[node] = tuple(self._open)
        around = next((arm for arm in reversed(self._open) if arm.is_inside), None)
        if around is not None:
            around.steps.append(node)

    def check_reach(self, reference: Reference, what: str) -> None:
        """Refuse a result of an arm that is not being traced any more."""
        left = next((arm for arm in self._made_in.get(reference.node, ()) if arm not in self._open), None)
        if left is not None:
            self._body.refuse(
                f"{what} uses {reference}, which is made in an arm of {left.word}() that may not run",
                f"return it from the arm: {left.word}() returns what the arm returned that ran",
            )

    @contextmanager
    def _arm(self, word: str, guards: Sequence[Json] = (), *, is_inside: bool = False) -> Iterator[OpenArm]:
        arm = OpenArm(word, tuple(guards), is_inside)
        self._open.append(arm)
        try:
            yield arm
        finally:
            self._open.remove(arm)

    def _traced(self, what: str, arm: OpenArm, fn: Any, *arguments: object) -> _Result:
        """Return what the function of an open arm returns."""
        if is_symbol(fn) or is_condition(fn) or not callable(fn):
            self._body.refuse(
                f"{what} is given {fn!r} and not a function",
                "write lambda: before it, so that its steps are those of the arm",
            )
        value = fn(*arguments)
        expr = self._body.encoder(f"what {what} returns").encode(value)
        return _Result(expr, _shape(value, expr), arm)

    # ------------------------------------------------------------------ conditions

    def compare(self, operator: str, left: Symbol, right: object) -> Condition:
        """See ``trace.Control``."""
        if is_condition(right):
            self._body.refuse(
                f"{reference_of(left)} is compared with the condition {claim_of(right).words}",
                "join conditions with all_of(), any_of() and not_()",
            )
        reference = self._body.own(left, "a comparison")
        expr = self._body.encoder(f"what {reference} is compared with").encode(right)
        problem = incomparable(operator, reference.shape, _shape(right, expr))
        if problem is not None:
            self._body.refuse(f"{reference} {operator} {_words(right, expr)}: {problem[0]}", problem[1])
        references = (reference, reference_of(right)) if is_symbol(right) else (reference,)
        words = f"{reference} {operator} {_words(right, expr)}"
        return Condition(Claim(self._body, {"$op": operator, "args": [reference.to_json(), expr]}, references, words))

    def combine(self, operator: str, conditions: tuple[object, ...]) -> Condition:
        """See ``trace.Control``."""
        if not conditions:
            self._body.refuse(f"{operator}() is given no condition", "give it comparisons of results")
        claims = [self.claim(f"{operator}()", condition) for condition in conditions]
        return Condition(
            Claim(
                self._body,
                {"$op": operator, "args": [claim.expr for claim in claims]},
                tuple(reference for claim in claims for reference in claim.references),
                f"{operator}({', '.join(claim.words for claim in claims)})",
            )
        )

    def claim(self, what: str, condition: object) -> Claim:
        """Return what a condition stands for; refuse what is none."""
        if is_condition(condition):
            claim = claim_of(condition)
            if claim.wiring is not self._body:
                self._body.refuse(f"{what} is given a condition of another workflow", "pass results, and compare here")
            for reference in claim.references:
                self.check_reach(reference, what)
            return claim
        if not is_symbol(condition):
            self._body.refuse(
                f"{what} is given {condition!r} as a condition, which is known before the run",
                "compare results themselves, not texts made of them; for what is known already write if",
            )
        reference = self._body.own(condition, what)
        kinds = reference.shape.kinds()
        if kinds is not None and not kinds <= {"boolean", "null"}:
            self._body.refuse(
                f"{what} is given {reference} as a condition, which is {reference.shape.words()}",
                f"compare it, as in {reference} > 0; or return a bool from a step",
            )
        return Claim(self._body, reference.to_json(), (reference,), str(reference))

    # ------------------------------------------------------------------ branch and switch

    def branch(self, condition: object, then: Any, otherwise: Any) -> Symbol:
        """See ``trace.Control``."""
        with self._body.refusals_noted():
            self._check_place("branch()")
            claim = self.claim("branch()", condition)
            arms = [("branch(then=)", [_guard(claim, True)], then)]
            if otherwise is not None:
                arms.append(("branch(otherwise=)", [_guard(claim, False)], otherwise))
            return self._merged("branch", "branch", arms, is_complete=otherwise is not None)

    def switch(self, value: object, cases: Any, default: Any) -> Symbol:
        """See ``trace.Control``."""
        with self._body.refusals_noted():
            self._check_place("switch()")
            if not is_symbol(value):
                self._body.refuse(
                    f"switch() is given {value!r}, which is known before the run",
                    "give it a result; for what is known already write match",
                )
            if not isinstance(cases, Mapping) or not cases:
                self._body.refuse(
                    "switch() is given no cases", 'give a dict: {"book": lambda: ..., "file": lambda: ...}'
                )
            claims = {key: self._case(value, key) for key in cases}
            arms = [(f"switch({key!r})", [_guard(claims[key], True)], fn) for key, fn in cases.items()]
            if default is not None:
                arms.append(("switch(default=)", [_guard(claim, False) for claim in claims.values()], default))
            return self._merged("switch", "branch", arms, is_complete=default is not None)

    def _case(self, value: Symbol, key: object) -> Claim:
        reference = reference_of(value)
        claim = claim_of(self.compare("==", value, key))
        wanted = claim.expr["args"][1]
        named = [option.keyword("enum", None) for option in reference.shape.options()]
        if (
            is_literal(wanted)
            and named
            and all(each is not None and literal_value(wanted) not in each for each in named)
        ):
            known = ", ".join(repr(one) for each in named for one in each)
            self._body.refuse(f"switch(): {reference} is never {key!r}", f"it is one of {known}")
        return claim

    def _merged(
        self, word: str, kind: Kind, arms: Sequence[tuple[str, list[Json], Any]], *, is_complete: bool
    ) -> Symbol:
        results: list[_Result] = []
        for what, guards, fn in arms:
            with self._arm(word, guards) as arm:
                results.append(self._traced(what, arm, fn))
        shapes = [result.shape for result in results]
        if not is_complete:
            shapes.append(literal_shape(None))
        made = tuple({"guards": list(result.arm.guards), "value": result.expr} for result in results)
        return self._added(word, kind, made, either(shapes))

    # ------------------------------------------------------------------ recover and first

    def recover(self, primary: Any, fallback: Any, on: object) -> Symbol:
        """See ``trace.Control``."""
        with self._body.refusals_noted():
            self._check_place("recover()")
            named = tuple(named_failures("recover()", on))
            tried = self._inside("recover", "the first part of recover()", primary)
            made = ({"value": None, "steps": tried.arm.steps},)
            caught = reference_of(self._added("recover", "recover", made, _caught(), named))
            failed = Claim(self._body, caught.at("failed").to_json(), (caught,), "failed")
            with self._arm("recover", [_guard(failed, True)]) as arm:
                is_told = not is_symbol(fallback) and callable(fallback) and takes_failure(fallback)
                why = (Symbol(caught.at("failure")),) if is_told else ()
                instead = self._traced("the fallback of recover()", arm, fallback, *why)
            arms = (
                {"guards": [_guard(failed, False)], "value": tried.expr},
                {"guards": [_guard(failed, True)], "value": instead.expr},
            )
            return self._added("recovered", "branch", arms, either([tried.shape, instead.shape]))

    def first(self, arms: tuple[Any, ...]) -> Symbol:
        """See ``trace.Control``."""
        with self._body.refusals_noted():
            self._check_place("first()")
            if not arms:
                self._body.refuse("first() is given nothing", "give it functions: first(lambda: ..., lambda: ...)")
            results = [self._inside("first", f"arm {number} of first()", fn) for number, fn in enumerate(arms, start=1)]
            made = tuple({"value": result.expr, "steps": result.arm.steps} for result in results)
            return self._added("first", "first", made, either([result.shape for result in results]))

    def _inside(self, word: str, what: str, fn: Any) -> _Result:
        """Trace an arm that decides what the failures of its steps mean."""
        with self._arm(word, is_inside=True) as arm:
            result = self._traced(what, arm, fn)
        if not arm.steps:
            self._body.refuse(f"{what} calls no step", "only steps can fail, or be the first: call one in it")
        return result

    # ------------------------------------------------------------------ nodes

    def _added(
        self, word: str, kind: Kind, arms: tuple[Mapping[str, Any], ...], shape: Shape, on: tuple[Json, ...] = ()
    ) -> Symbol:
        node = Node(
            id=self._body.new_id(word),
            kind=kind,
            step=word,
            signature="",
            inputs={},
            # Nobody reads it of a choice, but whether there is a result to use.
            result={"type": "null"} if shape.kinds() == frozenset({"null"}) else {},
            policy=Policy().to_json(),
            guards=self.guards(),
            arms=arms,
            on=on,
        )
        self._body.add_node(node)
        return Symbol(Reference(self._body, node.id, (), shape))

    def _check_place(self, what: str) -> None:
        building = self._body.building
        if building is not None:
            self._body.refuse(
                f"{building.name}() calls {what} while it builds a request",
                "an @http function only describes its request; choose in the workflow body, between two steps",
            )


def _caught() -> Shape:
    """Return the shape of what ``recover`` finds of its first part."""
    failure = failure_shape()
    return Shape(
        {"type": "object", "properties": {"failed": {"type": "boolean"}, "failure": failure.schema}}, failure.defs
    )


def either(shapes: Sequence[Shape]) -> Shape:
    """Return the shape of a value that may have each of these."""
    different = list({repr((shape.schema, shape.defs)): shape for shape in shapes}.values())
    if len(different) == 1:
        return different[0]
    members: list[Any] = []
    defs: dict[str, Any] = {}
    for number, shape in enumerate(arm for one in different for arm in one.arms()):
        names = {name: f"{number}.{name}" for name in shape.defs}
        members.append(redirected(shape.schema, names))
        defs |= {names[name]: redirected(schema, names) for name, schema in shape.defs.items()}
    return Shape({"anyOf": members}, defs, every=True)


def _guard(claim: Claim, expected: bool) -> Json:
    return {"if": claim.expr, "is": expected}


def _shape(value: object, expr: Expr) -> Shape:
    if is_symbol(value):
        return reference_of(value).shape
    if isinstance(value, str):
        return literal_shape("")
    return literal_shape(literal_value(expr) if is_literal(expr) else expr)


def _words(value: object, expr: Expr) -> str:
    return str(reference_of(value)) if is_symbol(value) else repr(literal_value(expr) if is_literal(expr) else "a text")

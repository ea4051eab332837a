"""The trace of one workflow body: every call of a step becomes a node, every result a symbol."""

import itertools
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, NoReturn, cast

from pydantic import ValidationError

from hopline import source
from hopline.arguments import argument, listed
from hopline.batches import check_batch
from hopline.choices import Choices
from hopline.closing import FAILURE, Closes, closing_arguments
from hopline.definition import Definition, Expr, Node, references, request_expressions
from hopline.errors import DefinitionError, definition_error
from hopline.expressions import Encoder, is_literal, literal_value
from hopline.fit import can_be_formatted, disagreement, misfit
from hopline.hints import misuse_hint
from hopline.identity import identity_test
from hopline.keys import key_of
from hopline.laps import Body, Repeat, add_traced, check_fit, condition_of
from hopline.markers import ResultMark, may_hold_marks, readable
from hopline.policy import Policy, Queue
from hopline.request import Request
from hopline.request_template import request_template
from hopline.schema import Codec, codec
from hopline.shape import Shape
from hopline.step_codec import codec_of, found_schema
from hopline.steps import Step, Workflow
from hopline.trace import INPUT, ITEM, Reference, Symbol, current, is_symbol, reference_of
from hopline.turn import add_turn
from hopline.waiting import Wait

_numbers = itertools.count(1)
Admit = Callable[["BodyTrace", Step[..., Any]], Definition | None]
"""Refuses a step that may not stand beside the others; returns the definition of one that is a workflow."""

_NOT_YET = "a workflow body runs once, before there are values; work with values inside a step"


class BodyTrace:
    """Runs a workflow body once and keeps what it wired. Used for one trace only."""

    def __init__(self, workflow: Workflow[..., Any], admit: "Admit", around: "BodyTrace | None" = None) -> None:
        """Make a trace; of the body of a loop, with the trace *around* it."""
        self.workflow = workflow
        self.around = around
        self.captured: dict[str, Expr] = {}
        """What the body of a loop uses from around it, by the parameter that brings it."""
        self.inner: list[tuple[BodyTrace, Expr]] = []
        """The bodies of loops, with their results."""
        self.nodes: dict[str, Node] = {}
        self.places: dict[str, source.Location] = {}
        self.queues: dict[str, Queue] = {}
        self.children: list[Definition] = []
        self._admit = admit
        self._number = next(_numbers)
        self._texts: list[tuple[Reference, str]] = []
        self._calls: dict[str, int] = {}
        self._at = source.of_function(workflow.fn)
        self._files: frozenset[str] = frozenset()
        self.building: Step[..., Any] | None = None
        """The HTTP step whose request is being described."""
        self.control = Choices(self)
        self._refused: DefinitionError | None = None

    def run(self, arguments: Mapping[str, Any] | None = None) -> Expr:
        """Trace the body, of a dynamic workflow with its real arguments, and return the expression of its result."""
        own = codec(self.workflow.fn)
        with self._entered():
            value = self._called(self.workflow, self.symbols() if arguments is None else dict(arguments))
            add_turn(self)
            self._close()
        return self._result(value, own, Shape.of(own.passed_result_shape))

    def _close(self) -> None:
        """Add the steps that run when everything else has ended."""
        own = self.workflow
        closing: tuple[tuple[Closes, Step[..., Any] | None], ...] = (
            ("on_failure", own.on_failure),
            ("finally", own.finally_),
        )
        for closes, step in closing:
            if step is not None:
                given = closing_arguments(self, own.name, closes, step, self.symbols())
                self._add(step, self._bound(step, (), given), None, closes=closes)

    def symbols(self) -> dict[str, Any]:
        """Return what stands for the parameters."""
        shapes = Shape.of(codec(self.workflow.fn).parameters_shape)
        places = {name: shapes.at(name) for name in self.workflow.parameters}
        return {
            name: Symbol(Reference(self, INPUT, (name,), place[1] if place else Shape(True)))
            for name, place in places.items()
        }

    # ------------------------------------------------------------------ what the body may do

    def call(self, step: Step[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Symbol:
        """See ``trace.Wiring``."""
        with self.refusals_noted():
            return self._add(step, self._bound(step, args, kwargs), None)

    def map(
        self,
        step: Step[..., Any],
        items: Any,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        *,
        settled: bool = False,
    ) -> Symbol:
        """See ``trace.Wiring``."""
        with self.refusals_noted():
            over = next(iter(step.parameters), None)
            if over is None:
                self.refuse(f"{step.name}() has no parameter to map over", "give it one that takes an element")
            arguments = self._bound(step, (listed(self, step, items), *args), kwargs)
            return self._add(step, arguments, over, settled=settled)

    def loop(self, body: Any, start: Any, *, until: Any, limit: int, every: str | None) -> Symbol:
        """See ``trace.Wiring``."""
        with self.refusals_noted():
            self._refuse_while_building("loop")
            repeat = Repeat(until, limit, every)
            if not issubclass(type(body), Step):
                return add_traced(self, body, start, repeat)
            over = next(iter(body.parameters), None)
            if over is None:
                self.refuse(
                    f"loop() repeats {body.name}(), which has no parameter", "give it one that takes a lap's result"
                )
            return self._add(body, self._bound(body, (start,), {}), over, repeat=repeat)

    def wait(self, wait: Wait) -> Symbol:
        """See ``trace.Wiring``."""
        with self.refusals_noted():
            self._refuse_while_building(wait.name)
            inputs = {name: self._input_of_wait(wait, name, value) for name, value in wait.inputs.items()}
            node = Node(
                id=self.new_id(wait.name),
                kind=wait.kind,
                step=wait.name,
                signature="",
                inputs=inputs,
                after=tuple(sorted(self._after(wait.name, wait.upstream))),
                result=wait.result,
                policy=wait.policy.to_json(),
                guards=self.control.guards(),
            )
            self.add_node(node)
            return Symbol(Reference(self, node.id, (), Shape.of(wait.shape)))

    def refuse(self, message: str, hint: str) -> NoReturn:
        """See ``trace.Wiring``."""
        with self.refusals_noted():
            raise definition_error(readable(message), hint, source.of_call_within(self._files, self._at))

    def text_mark(self, reference: Reference, spec: str) -> str:
        """See ``trace.Wiring``."""
        if may_hold_marks(spec):
            self.refuse(f"the format of {reference} is a result itself", "formats are fixed; format it inside a step")
        if spec and not can_be_formatted(reference.shape, spec):
            self.refuse(
                f"{reference} cannot be formatted with {spec!r}: in the run it is {reference.shape.words()}",
                "dates and such are texts there; format them inside a step",
            )
        self._texts.append((reference, spec))
        return str(ResultMark(self._number, len(self._texts) - 1))

    # ------------------------------------------------------------------ one call

    def _bound(self, step: Step[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> dict[str, Any]:
        self._refuse_while_building(step.name)
        try:
            return step.bind(args, kwargs)
        except TypeError as error:
            self.refuse(f"{step.name}(): {error}", f"its parameters are {step.name}{step.parameter_list}")

    def _refuse_while_building(self, name: str) -> None:
        if self.building:
            self.refuse(
                f"{self.building.name}() calls {name}() while it builds a request",
                "an @http function only describes its request; call steps in the workflow body and pass their results",
            )

    def _input_of_wait(self, wait: Wait, name: str, value: object) -> Expr:
        what = f"{wait.name}(): {name}"
        expr = self.encoder(what).encode(value)
        problem = disagreement(reference_of(value).shape, Shape({"type": "string"})) if is_symbol(value) else None
        if problem:
            self.refuse(f"{what} does not fit: {problem}", "give a text, or a result that is one")
        return expr

    def _add(
        self,
        step: Step[..., Any],
        arguments: dict[str, Any],
        over: str | None,
        *,
        settled: bool = False,
        repeat: Repeat | None = None,
        closes: Closes | None = None,
    ) -> Symbol:
        child = self._admitted(step)
        mapped = over if repeat is None else None
        check_batch(self, step, mapped)
        own = codec_of(step)
        is_composed = step.kind in {"workflow", "dynamic"}
        given = {name: argument(self, step, own, name, value, each=name == mapped) for name, value in arguments.items()}
        shape = Shape.of(own.passed_result_shape if is_composed else found_schema(step, own.result_shape))
        loop = self._loop(step, own, over, shape, repeat) if repeat is not None and over is not None else None
        inputs, request, after = given, None, self._after(step.name, step.upstream)
        if step.kind == "http":
            request = self._request(step, arguments, over, is_mapped=mapped is not None)
            inputs = {over: given[over]} if over else {}
            # What is passed but not part of the request is waited for all the same, as with every step.
            after |= _nodes_in([*given.values()]) - _nodes_in([*inputs.values(), *request_expressions(request)])
        elements = arguments if over is None else arguments | {over: self._each(step, arguments, over, mapped)}
        undo = self._undo(step.undos[0], shape) if step.undos and self.workflow.compensate and closes is None else None
        node = Node(
            id=self.new_id(step.name),
            kind=step.kind if loop is None else "loop",
            step=step.name,
            signature=step.signature,
            inputs=inputs,
            request=request,
            workflow=None if child is None else {"name": child.name, "digest": child.digest},
            over=mapped,
            loop=loop,
            settled=settled,
            after=tuple(sorted(after)),
            result=own.passed_result_schema if is_composed else found_schema(step, own.result_schema),
            policy=self._policy(step) | key_of(self, step, elements) | ({"undo": undo["id"]} if undo else {}),
            guards=self.control.guards(),
            undo=undo,
            closes=closes,
        )
        self.add_node(node)
        if settled:
            shape = shape.settled()
        return Symbol(Reference(self, node.id, (), shape.listed() if mapped else shape))

    @property
    def priority(self) -> int | None:
        """That of steps that name none."""
        return self.workflow.priority if self.around is None else self.around.priority

    def _policy(self, step: Step[..., Any]) -> dict[str, Any]:
        """Return the policy of a step, with the priority of the workflow unless it has one of its own."""
        own = self.priority
        takes_it = own is not None and step.policy.priority is None and step.kind in {"python", "http"}
        return (step.policy.overridden_by(Policy(priority=own)) if takes_it else step.policy).to_json()

    def _loop(self, step: Step[..., Any], own: Codec, over: str, result: Shape, repeat: Repeat) -> dict[str, Any]:
        place = Shape.of(own.parameters_shape).at(over)
        check_fit(self, f"{step.name}()", place[1] if place else Shape(True), result)
        return repeat.to_json(step.kind, over, condition_of(self, repeat, result))

    def within(self, body: Body) -> "BodyTrace":
        """Return the trace of the body of a loop."""
        return BodyTrace(cast("Workflow[..., Any]", body), self._admit, self)

    @contextmanager
    def entered_within(self) -> Iterator[None]:
        """Have what is called now belong to the body of a loop."""
        assert self.around is not None
        self._files = self.around._files | source.files_of(self.workflow.fn)  # noqa: SLF001 - of the same class
        token = current.set(self)
        try:
            yield
        finally:
            current.reset(token)

    def adopt(self, inner: "BodyTrace", result: Expr, definition: Definition) -> None:
        """Take over what the body of a loop needs."""
        self.inner.append((inner, result))
        self.children.append(definition)
        self.queues |= inner.queues

    def all_children(self) -> dict[str, Definition]:
        """Return the definitions of all workflows that are started, and of those that those start, by digest."""
        children: dict[str, Definition] = {}
        for child in self.children:
            children |= {child.digest: child, **child.children}
        return children

    def _undo(self, step: Step[..., Any], shape: Shape) -> dict[str, Any]:
        """Return the step that undoes another one, whose results have a *shape*."""
        self._admitted(step)
        own = codec_of(step)
        arguments = self._bound(step, (Symbol(Reference(self, ITEM, (), shape)),), {})
        given = {name: argument(self, step, own, name, value, each=False) for name, value in arguments.items()}
        is_http = step.kind == "http"
        return {
            "id": self.new_id(step.name),
            "kind": step.kind,
            "step": step.name,
            "signature": step.signature,
            "inputs": {} if is_http else given,
            "request": self._request(step, arguments, None, is_mapped=False) if is_http else None,
            "result": own.result_schema,
            "policy": self._policy(step) | key_of(self, step, arguments),
        }

    def add_node(self, node: Node) -> None:
        """Make a node part of the workflow."""
        self.nodes[node.id] = node
        self.places[node.id] = source.of_call_within(self._files, self._at)
        self.control.note(node.id)

    def _admitted(self, step: Step[..., Any]) -> Definition | None:
        child = self._admit(self, step)
        if child is not None:
            self.children.append(child)
        if isinstance(step.policy.queue, Queue):
            self.queues[step.policy.queue.name] = step.policy.queue
        return child

    def new_id(self, name: str) -> str:
        """Return an id for the next node that is called *name*."""
        self._calls[name] = self._calls.get(name, 0) + 1
        node_id = name if self._calls[name] == 1 else f"{name}_{self._calls[name]}"
        return node_id if node_id not in self.nodes else self.new_id(name)

    def _after(self, name: str, results: tuple[object, ...]) -> set[str]:
        names: set[str] = set()
        for dep in _flat(results):
            reference = self.own(dep, f"{name}.after()") if is_symbol(dep) else None
            if reference is None or reference.node in (INPUT, ITEM, FAILURE):
                self.refuse(
                    f"{name}.after() is given {dep!r}, not the result of a step",
                    "give what calls of steps returned",
                )
            names.add(reference.node)
        return names

    def _request(
        self, step: Step[..., Any], arguments: dict[str, Any], over: str | None, *, is_mapped: bool
    ) -> dict[str, Any]:
        given = dict(arguments)
        if over:
            given[over] = self._each(step, arguments, over, over if is_mapped else None)
        outside, self.building, self._files = (self._files, step, self._files | source.files_of(step.fn))
        try:
            request = self._called(step, given)
            if not isinstance(request, Request):
                self.refuse(
                    f"{step.name}() returned {request!r}, not a request",
                    "return http.get(...), http.post(...) or the like",
                )
            return request_template(
                request, lambda part: self.encoder(f"{step.name}(): {part}", secrets=True), self.refuse
            )
        finally:
            self.building, self._files = None, outside

    def _each(self, step: Step[..., Any], arguments: Mapping[str, Any], over: str, mapped: str | None) -> Symbol:
        """Return what stands for one element of a map, or what a lap is given."""
        place = Shape.of(codec(step.fn).parameters_shape).at(over)
        declared = place[1] if place else Shape(True)
        shape = declared if mapped is None else self._element(arguments[over], declared)
        return Symbol(Reference(self, ITEM, (), shape))

    def _element(self, items: Any, declared: Shape) -> Shape:
        element = reference_of(items).shape.element() if is_symbol(items) else None
        return declared if element is None or element.kinds() is None else element

    # ------------------------------------------------------------------ symbols and values

    def own(self, symbol: Symbol, what: str) -> Reference:
        """Return what a symbol stands for; refuse one that means nothing here."""
        reference = reference_of(symbol)
        if reference.wiring is not self and self.around is not None:
            return self._capture(self.around.own(symbol, what))
        if reference.wiring is not self:
            self.refuse(
                f"{what} uses {reference}, a result of another workflow or of another compilation",
                "results live in one workflow: pass them as parameters, or return them from a workflow that is called",
            )
        self.control.check_reach(reference, what)
        return reference

    def _capture(self, reference: Reference) -> Reference:
        """Return what stands in the body of a loop for a value from around it."""
        expr = reference.to_json()
        name = next((name for name, known in self.captured.items() if known == expr), None)
        if name is None:
            name = f"outer_{len(self.captured) + 1}"
            self.captured[name] = expr
        return Reference(self, INPUT, (name,), reference.shape)

    def text_of(self, mark: ResultMark, what: str) -> tuple[Reference, str] | None:
        """Return what a mark in a text stands for, and its format; None for one of another workflow."""
        if mark.wiring == self._number:
            reference, spec = self._texts[mark.number]
            self.control.check_reach(reference, what)
            return reference, spec
        found = self.around.text_of(mark, what) if self.around is not None else None
        return None if found is None else (self._capture(found[0]), found[1])

    def encoder(self, what: str, *, secrets: bool = False) -> Encoder:
        """Return what turns a value of the body into an expression; *what* it is, for messages."""

        def mark(mark: ResultMark) -> Expr:
            found = self.text_of(mark, what)
            if found is None:
                self.refuse(f"{what} holds a text with a result of another workflow", "make the text where it is used")
            return {**found[0].to_json(), "format": found[1]}

        return Encoder(
            what=what,
            secrets=secrets,
            reference=lambda symbol: self.own(symbol, what).to_json(),
            mark=mark,
            refuse=self.refuse,
        )

    def _result(self, value: object, own: Codec, declared: Shape) -> Expr:
        expr = self.encoder(f"the result of {self.workflow.name}").encode(value)
        problem = own.result_mismatch(literal_value(expr)) if is_literal(expr) else misfit(value, declared)
        if problem:
            self.refuse(
                f"{self.workflow.name} does not return what it declares: {problem}",
                "return a result of that type, or change the return type",
            )
        return expr

    # ------------------------------------------------------------------ running the user's function

    @contextmanager
    def refusals_noted(self) -> Iterator[None]:
        """Note the first refusal, so that it stands even when the body catches it."""
        try:
            yield
        except DefinitionError as error:
            self._refused = self._refused or error
            raise

    @contextmanager
    def _entered(self) -> Iterator[None]:
        token = current.set(self)
        self._files = source.files_of(self.workflow.fn)
        try:
            yield
        finally:
            self._files = frozenset()
            current.reset(token)

    def _called(self, step: Step[..., Any], arguments: dict[str, Any]) -> object:
        unheard = identity_test(step.fn, [name for name, value in arguments.items() if is_symbol(value)])
        if unheard is not None:
            raise unheard
        try:
            value = step.fn(**arguments)
        except DefinitionError as error:
            raise self._refused or error from None
        except Exception as error:
            raise self._failed(step, error) from error
        if self._refused:
            raise self._refused
        return cast("object", value)

    def _failed(self, step: Step[..., Any], error: Exception) -> DefinitionError:
        at = source.of_failure_within(self._files, error.__traceback__, source.of_function(step.fn))
        message = f"{step.name}() raised {type(error).__name__}: {readable(str(error))}"
        if isinstance(error, ValidationError) and any(is_symbol(one["input"]) for one in error.errors()):
            names = f"{step.name}() builds a {error.title} from results"
            return definition_error(names, "results have no values to check yet; build it inside a step", at)
        return definition_error(message, misuse_hint(error) or _NOT_YET, at)


def _nodes_in(exprs: list[Expr]) -> set[str]:
    return {name for name in references(exprs) if name not in (INPUT, ITEM, FAILURE)}


def _flat(values: tuple[object, ...]) -> Iterator[object]:
    for value in values:
        if not is_symbol(value) and isinstance(value, list | tuple):
            yield from _flat(tuple(value))
        else:
            yield value

"""Compile a workflow: trace its body once, and those of the workflows it starts; check the graphs; make definitions."""

from collections.abc import Callable, Mapping
from typing import Any

from hopline import source
from hopline.definition import Definition, Expr, Json, Node
from hopline.dynamic import Dynamic
from hopline.errors import definition_error
from hopline.graph import cycle_in, idle_in, unused_in
from hopline.policy import Queue
from hopline.schedules import SCHEDULED
from hopline.schema import codec
from hopline.started_by import started_by
from hopline.steps import Step, Workflow
from hopline.trace import INPUT
from hopline.wiring import BodyTrace


def compile_workflow(workflow: Workflow[..., Any]) -> Definition:
    """Return the definition of *workflow*; raises DefinitionError for the first thing that is wrong in it."""
    return call_of(workflow) if isinstance(workflow, Dynamic) else _Compilation().definition(workflow)


def call_of(workflow: Dynamic[..., Any]) -> Definition:
    """Return the definition of a run that is one call of *workflow*, whose graph nobody knows before."""
    own = codec(workflow.fn)
    node = Node(
        id=workflow.name,
        kind=workflow.kind,
        step=workflow.name,
        signature=workflow.signature,
        inputs={name: {"$ref": INPUT, "path": [name]} for name in workflow.parameters},
        result=own.passed_result_schema,
        policy=workflow.policy.to_json(),
    )
    return Definition(
        name=workflow.name,
        parameters=own.parameters_schema,
        nodes={node.id: node},
        result={"$ref": node.id, "path": []},
        result_schema=own.passed_result_schema,
    )


def compile_call(
    workflow: Dynamic[..., Any], arguments: Mapping[str, Any], serves: Callable[[Step[..., Any]], bool]
) -> Definition:
    """Return the definition of the graph that *workflow* wires from real arguments; runs its body once.

    Raises DefinitionError for whatever is wrong in it, also for a step that nobody *serves*.
    """
    return _Compilation(serves).definition(workflow, arguments)


def steps_of(workflow: Workflow[..., Any]) -> list[Step[..., Any]]:
    """Return all steps that *workflow* and the workflows in it call, these included; raises as ``compile_workflow``."""
    if isinstance(workflow, Dynamic):  # what it calls is known when it is called
        return [workflow]
    compilation = _Compilation()
    compilation.definition(workflow)
    return list(compilation.steps.values())


class _Compilation:
    """One call of ``compile``: each workflow in it is traced once, however often it is started."""

    def __init__(self, serves: Callable[[Step[..., Any]], bool] | None = None) -> None:
        self._serves = serves
        self._done: dict[Callable[..., Any], Definition] = {}
        self._open: list[Workflow[..., Any]] = []
        self.steps: dict[str, Step[..., Any]] = {}
        self._queues: dict[str, Queue] = {}

    def definition(self, workflow: Workflow[..., Any], arguments: Mapping[str, Any] | None = None) -> Definition:
        """Return the definition of *workflow*, made now unless it was made before; with *arguments*, from these."""
        found = self._done.get(workflow.fn)
        if found is not None:
            return found
        self.steps.setdefault(workflow.name, workflow)
        self._open.append(workflow)
        trace = BodyTrace(workflow, self._admit)
        result = trace.run(arguments)
        self._open.pop()
        _check_graph(trace, result)
        definition = self._done[workflow.fn] = _assembled(trace, result)
        return definition

    def _admit(self, parent: BodyTrace, step: Step[..., Any]) -> Definition | None:
        """Check a step that *parent* is about to call against all others; compile it if it is a workflow."""
        known = self.steps.setdefault(step.name, step)
        if known.fn is not step.fn:
            places = f"{source.of_function(known.fn)} and {source.of_function(step.fn)}"
            parent.refuse(
                f"two functions are named {step.name!r}: {places}", "rename one of them; steps are known by their names"
            )
        queue = step.policy.queue
        if isinstance(queue, Queue) and self._queues.setdefault(queue.name, queue).to_json() != queue.to_json():
            parent.refuse(
                f"two queues are named {queue.name!r}: {self._queues[queue.name]} and {queue}",
                "define it once and use that object everywhere",
            )
        if step.kind in {"python", "dynamic"} and self._serves is not None and not self._serves(step):
            parent.refuse(
                f"the worker that runs {parent.workflow.name} does not serve the step {step.name!r}",
                "define the step at the top level of one of the worker's files, or import it there by its name",
            )
        return self._child(parent, step) if isinstance(step, Workflow) and step.kind == "workflow" else None

    def _child(self, parent: BodyTrace, workflow: Workflow[..., Any]) -> Definition:
        open_functions = [one.fn for one in self._open]
        if workflow.fn in open_functions:
            ring = [*self._open[open_functions.index(workflow.fn) :], workflow]
            parent.refuse(
                f"{workflow.name} starts itself: {' -> '.join(one.name for one in ring)}",
                "a graph has an end; put the repetition inside a step, or map over a list",
            )
        return self.definition(workflow)


def _check_graph(trace: BodyTrace, result: Expr) -> None:
    ring = cycle_in(trace.nodes)
    if ring:
        raise definition_error(
            f"the steps {' -> '.join(ring)} wait for each other", "remove one of these orders", trace.places[ring[0]]
        )
    for node in idle_in(trace.nodes, result):
        raise definition_error(
            f"nothing waits for {node.id} in {trace.workflow.name}",
            "a workflow body only wires; let the steps that are to come later wait for it: step.after(sleep(...))(...)",
            trace.places[node.id],
        )
    for inner, its_result in trace.inner:
        _check_graph(inner, its_result)
    for node in unused_in(trace.nodes, result):
        raise definition_error(
            f"nothing uses the result of {node.id} in {trace.workflow.name}",
            "pass it to a step, return it, or order a step with .after(it); a step that is only an effect returns None",
            trace.places[node.id],
        )


def _assembled(trace: BodyTrace, result: Expr) -> Definition:
    own = codec(trace.workflow.fn)
    return Definition(
        name=trace.workflow.name,
        parameters=own.parameters_schema,
        nodes=trace.nodes,
        result=result,
        result_schema=own.passed_result_schema,
        on=started_by(trace),
        compensate=trace.workflow.compensate,
        deadline=trace.workflow.deadline,
        queues=tuple(trace.queues[name].to_json() for name in sorted(trace.queues)),
        schedule=_schedule(trace.workflow, own.parameters_schema),
        children=trace.all_children(),
    )


def _schedule(workflow: Workflow[..., Any], parameters: Json) -> Json:
    """Return the checked schedule of a workflow as it stands in its definition; None when it has none."""
    if workflow.schedule is None:
        return None
    from hopline.timing import ScheduleError, timing_of  # imports croniter, which few workflows need

    at = source.of_function(workflow.fn)
    schedule = workflow.schedule.to_json()
    try:
        timing_of(schedule, 0.0)
    except ScheduleError as error:
        raise definition_error(f"schedule of {workflow.name}: {error}", error.hint, at) from None
    for name in parameters["required"]:
        if SCHEDULED not in parameters["properties"][name]:
            raise definition_error(
                f"{workflow.name} has a schedule, which has no value for the parameter {name!r}",
                "give it a default; scheduled.date and scheduled.time stand for the time of the run",
                at,
            )
    return schedule

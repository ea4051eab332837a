"""Worlds for a few sentences: a handful of steps, and executors that do one simple thing."""

from typing import Any

import msgspec

from hopline_engine.core.live import LiveTask
from hopline_engine.core.plan import Plan
from hopline_engine.core.retry import Failure
from tests.core.worlds import Execute, Outcome, World, plan, ref, step

BROKEN = Failure("ValueError", "broken", ("ValueError", "Exception"))


def failing(*names: str) -> Execute:
    """Return an executor under which these steps fail and all others return their arguments."""

    def execute(task: LiveTask, arguments: dict[str, Any]) -> Outcome:
        return BROKEN if task.name in names else msgspec.json.encode(arguments)

    return execute


def identity(_: LiveTask, arguments: dict[str, Any]) -> Outcome:
    """Return the one argument of a step."""
    return msgspec.json.encode(next(iter(arguments.values()), None))


def world(*nodes: dict[str, Any], result: Any = None, execute: Execute = identity, **more: Any) -> World:
    return World({"w": plan(list(nodes), result)}, execute, **more)


def with_child(child: Plan, *nodes: dict[str, Any], result: Any = None, execute: Execute = identity) -> World:
    return World({"w": plan(list(nodes), result, {child.name: child}), child.name: child}, execute)


CHILD = plan(
    [step("first", {"x": ref("$input", "v")}), step("second", {"x": ref("first")})], ref("second"), name="child"
)


def call(name: str = "sub", v: Any = 1, **more: Any) -> dict[str, Any]:
    """Return a step that runs the child workflow."""
    return step(name, {"v": v}, workflow=("child", "child"), **more)

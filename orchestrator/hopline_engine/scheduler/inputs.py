"""Inputs of runs, and what else may not be of the type that a workflow declares, checked."""

from collections.abc import Mapping
from functools import lru_cache
from typing import Any

import msgspec
from jsonschema.exceptions import best_match
from jsonschema.protocols import Validator

from hopline_engine.core.doubts import Part
from hopline_engine.core.plan import Plan
from hopline_engine.errors import InvalidInputError, closest
from hopline_engine.queue.results import describe, validator


def complete_input(plan: Plan, given: Mapping[str, Any]) -> bytes:
    """Return the input with defaults filled in, as JSON in the order of the parameters.

    Raises:
        InvalidInputError: names every parameter that is missing, unknown or of the wrong type.
    """
    properties: Mapping[str, Any] = plan.parameters.get("properties", {})
    value = {
        name: given[name] if name in given else schema["default"]
        for name, schema in properties.items()
        if name in given or "default" in schema
    }
    problems = [
        *(_unknown(name, properties) for name in given if name not in properties),
        *(f'parameter "{name}" is missing' for name in plan.parameters.get("required", ()) if name not in value),
        *_mismatches(plan, value),
    ]
    if problems:
        raise InvalidInputError(workflow=plan.name, problems=problems, hint=f"parameters: {_signature(plan)}")
    return msgspec.json.encode(value)


def _unknown(name: str, properties: Mapping[str, Any]) -> str:
    meant = closest(name, properties)
    return f'parameter "{name}" is unknown' + (f'; did you mean "{meant}"?' if meant else "")


def _mismatches(plan: Plan, value: Mapping[str, Any]) -> list[str]:
    return [
        f'parameter "{error.absolute_path[0]}": {describe(best_match([error]) or error, below=1)}'
        for error in sorted(_validator(plan).iter_errors(value), key=lambda error: list(map(str, error.absolute_path)))
        if error.absolute_path
    ]


def _signature(plan: Plan) -> str:
    """Return the parameters as people would write them."""
    shown = []
    for name, schema in plan.parameters.get("properties", {}).items():
        kind = schema.get("type") or schema.get("format") or "any"
        default = f" = {msgspec.json.encode(schema['default']).decode()}" if "default" in schema else ""
        shown.append(f"{name}: {kind}{default}")
    return ", ".join(shown) or "none"


def misfit(plan: Plan, part: Part, value: bytes) -> str | None:
    """Return why a value is no input of a workflow, or no result of it, and where; ``None`` when it is one."""
    checker = _validator(plan) if part == "input" else _validator_of_result(plan)
    error = best_match(checker.iter_errors(msgspec.json.decode(value)))
    return None if error is None else describe(error)


@lru_cache(maxsize=256)
def _validator(plan: Plan) -> Validator:
    return validator(plan.parameters)


@lru_cache(maxsize=256)
def _validator_of_result(plan: Plan) -> Validator:
    return validator(plan.doubts.result or {})

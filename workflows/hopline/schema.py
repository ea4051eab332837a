"""JSON schemas of functions, and their arguments and results to and from JSON; built on pydantic.

Imported by the compiler and the worker only: importing pydantic costs more than the rest of ``import hopline``.
"""

import inspect
import json
import math
import typing
from collections.abc import Callable, Mapping
from functools import cached_property
from typing import Any, Literal, NoReturn, get_args, get_origin
from weakref import WeakKeyDictionary

import typing_extensions
from pydantic import ConfigDict, PydanticUserError, TypeAdapter, ValidationError
from pydantic.json_schema import GenerateJsonSchema, JsonSchemaWarningKind
from pydantic_core import PydanticSerializationError

from hopline import source
from hopline.canonical_schema import note_names, tidied
from hopline.definition import Json, canonical, holds_nul
from hopline.errors import ArgumentError, ResultError, definition_error
from hopline.markers import Secret
from hopline.pending import Pending
from hopline.request import Request
from hopline.schedules import SCHEDULED, ScheduledValue
from hopline.trace import is_symbol

Function = Callable[..., Any]
Mode = Literal["validation", "serialization"]

# NameError: pydantic's for names in annotations of fields. TypeError: what is no type at all. KeyError: pydantic's for
# data with the key $ref where a schema stands.
_ADVICE_OF_PYDANTIC = ". Set `arbitrary_types_allowed"  # which would not give it a JSON schema either
_NO_SCHEMA = (PydanticUserError, NameError, TypeError, KeyError)


def parameters_schema(fn: Function) -> Json:
    """Return the JSON schema of the object of *fn*'s arguments. Raises DefinitionError for a type that has none."""
    return codec(fn).parameters_schema


def result_schema(fn: Function) -> Json:
    """Return the JSON schema of *fn*'s result, for an HTTP step that of the answer. Raises as ``parameters_schema``."""
    return codec(fn).result_schema


def arguments(fn: Function, body: bytes) -> dict[str, Any]:
    """Return the JSON object *body* as arguments of *fn*, each of its declared type.

    Parameters with defaults may be missing in both. Raises ArgumentError naming every parameter that is wrong.
    """
    return codec(fn).arguments(body)


def dump_result(fn: Function, value: object) -> bytes:
    """Return *value* as JSON after checking it against *fn*'s return type.

    Raises ResultError for another type, and for what JSON or a database cannot hold: NaN, infinities, NUL
    characters, lone surrogates.
    """
    return codec(fn).dump_result(value)


def codec(fn: Function) -> "Codec":
    """Return the codec of *fn*; made once for each function."""
    found = _codecs.get(fn)
    if found is None:
        found = _codecs[fn] = Codec(fn)
    return found


_codecs: "WeakKeyDictionary[Function, Codec]" = WeakKeyDictionary()
_SCHEDULED_EXAMPLES = {"date": "2026-11-21", "time": "2026-11-21T06:00:00+01:00"}


def _must_be_given(parameter: inspect.Parameter) -> bool:
    return parameter.default is parameter.empty or type(parameter.default) is ScheduledValue


class Codec:
    """What one function takes and gives, as JSON schemas and as converters. Safe to use from several threads."""

    def __init__(self, fn: Function) -> None:
        self._name = fn.__name__
        self._at = source.of_function(fn)
        self._signature = inspect.signature(fn)
        self._hints = self._resolved_hints(fn)

    @cached_property
    def parameters_schema(self) -> Json:
        """JSON schema of the object of all arguments."""
        return tidied(self.parameters_shape, keep_names=False)

    @cached_property
    def parameters_shape(self) -> Json:
        """The same, with the Python names of fields that have aliases."""
        schema = self._schema_of(self._arguments_adapter, "validation", self._blame_parameter)
        for name, parameter in self._signature.parameters.items():
            if type(parameter.default) is ScheduledValue:
                schema["properties"][name][SCHEDULED] = self._scheduled(name, parameter.default)
            elif parameter.default is not parameter.empty:
                schema["properties"][name]["default"] = self._default(name, parameter.default)
        schema.setdefault("required", [])
        schema.setdefault("$defs", {})
        return schema

    @cached_property
    def result_schema(self) -> Json:
        """JSON schema of the result."""
        return tidied(self.result_shape, keep_names=False)

    @cached_property
    def result_shape(self) -> Json:
        """The same, with the Python names of fields that have aliases."""
        return self._result_shape("validation" if self.is_http or self.is_deferred else "serialization")

    @cached_property
    def passed_result_schema(self) -> Json:
        """JSON schema of a result that is put together from other results and so has not been through pydantic."""
        return tidied(self.passed_result_shape, keep_names=False)

    @cached_property
    def passed_result_shape(self) -> Json:
        """The same, with the Python names of fields that have aliases."""
        return self._result_shape("validation")

    @cached_property
    def is_http(self) -> bool:
        """Whether the function returns a request; its result is then the answer, as the other side wrote it."""
        kind = self._return_hint
        return kind is Request or get_origin(kind) is Request

    @cached_property
    def is_deferred(self) -> bool:
        """Whether the function may end before there is a result; that is then what its callback reports."""
        return get_origin(self._return_hint) is Pending

    def arguments(self, body: bytes) -> dict[str, Any]:
        """See ``arguments``."""
        try:
            return self._arguments_adapter.validate_json(body, by_alias=True, by_name=True)
        except ValidationError as error:
            raise ArgumentError(f"{self._name}(): {_problems(error)}") from None

    def dump_result(self, value: object) -> bytes:
        """See ``dump_result``."""
        adapter = self._result_adapter
        try:
            checked = adapter.validate_python(value, by_alias=True, by_name=True)
            data = adapter.dump_json(checked, by_alias=True, warnings="error")
        except ValidationError as error:
            problems = f"{_problems(error)}; it returned {_kind_of(value)}"
            raise ResultError(f"{self._name}() returned what it does not declare: {problems}") from None
        except (PydanticSerializationError, ValueError, RecursionError) as error:
            raise ResultError(f"{self._name}() returned what JSON cannot say: {error}") from None
        if holds_nul(data):
            raise ResultError(f"{self._name}() returned text with a NUL character, which databases cannot hold")
        # pydantic writes NaN and infinities as null or as bare words; only then is a second look needed.
        if any(word in data for word in (b"null", b"NaN", b"Infinity")):
            self._refuse_lost_numbers(adapter.dump_python(checked, by_alias=True), json.loads(data))
        return data

    def mismatch(self, name: str, value: Json) -> str | None:
        """Return why the JSON *value* is no argument for the parameter *name*, or None when it is."""
        return _mismatch(self._parameter_adapters[name], value)

    def load_result(self, body: bytes) -> Any:
        """Return the JSON *body* of a result as a value of the declared type."""
        return self._result_adapter.validate_json(body)

    def result_mismatch(self, value: Json) -> str | None:
        """Return why the JSON *value* is no result, or None when it is."""
        return _mismatch(self._result_adapter, value)

    @cached_property
    def _arguments_adapter(self) -> TypeAdapter[dict[str, Any]]:
        fields = {
            name: self._hints[name] if _must_be_given(parameter) else typing.NotRequired[self._hints[name]]
            for name, parameter in self._signature.parameters.items()
        }
        try:
            return TypeAdapter(_closed_dict(fields))
        except _NO_SCHEMA as error:
            self._blame_parameter(error)

    @cached_property
    def _parameter_adapters(self) -> dict[str, TypeAdapter[Any]]:
        return {name: TypeAdapter(self._hints[name]) for name in self._signature.parameters}

    @cached_property
    def _result_adapter(self) -> TypeAdapter[Any]:
        kind = self._return_hint
        if kind is Request:
            self._refuse("Request does not say what the answer is", "write Request[Answer], or Request[None]")
        if kind is Pending:
            self._refuse("Pending does not say what the result will be", "write Pending[Result], or Pending[None]")
        if get_origin(kind) in (Request, Pending):
            (kind,) = get_args(kind)
        try:
            return TypeAdapter(kind)
        except _NO_SCHEMA as error:
            self._blame("its return type", kind, error)

    @property
    def _return_hint(self) -> Any:
        return self._hints["return"]

    def _result_shape(self, mode: Mode) -> Json:
        def blame(error: Exception) -> NoReturn:
            self._blame("its return type", self._return_hint, error)

        return self._schema_of(self._result_adapter, mode, blame)

    def _resolved_hints(self, fn: Function) -> dict[str, Any]:
        try:
            hints = typing.get_type_hints(fn, include_extras=True)
        except (NameError, AttributeError, TypeError, SyntaxError) as error:
            self._refuse(
                f"an annotation cannot be understood: {error}",
                "annotate with types that are defined, or imported, at the top level of the file",
            )
        missing = [name for name in self._signature.parameters if name not in hints]
        if missing:
            self._refuse(f"the parameter {missing[0]!r} has no annotation", f"write {missing[0]}: <type>")
        if "return" not in hints:
            self._refuse("the return type is not annotated", "write -> <type>, or -> None")
        return hints

    def _schema_of(self, adapter: TypeAdapter[Any], mode: Mode, blame: Callable[[Exception], NoReturn]) -> Json:
        try:
            schema = adapter.json_schema(mode=mode, schema_generator=_Strict)
            plain = adapter.json_schema(mode=mode, schema_generator=_Strict, by_alias=False)
        except (*_NO_SCHEMA, _UnsayableError) as error:
            blame(error)
        note_names(schema, plain)
        tidy = tidied(schema, keep_names=True)
        try:
            canonical(tidy)
        except (TypeError, ValueError) as error:
            blame(error)
        return tidy

    def _default(self, name: str, value: object) -> Json:
        if is_symbol(value) or type(value) is Secret:
            self._refuse(f"the default of {name!r} is {value!r}, known only in the run", "pass it as an argument")
        try:
            default = jsonable(value)
            canonical(default)
        except (PydanticSerializationError, ValueError) as error:
            self._refuse(f"the default of {name!r} cannot be written as JSON: {error}", "choose a default that can")
        problem = self.mismatch(name, default)
        if problem:
            self._refuse(f"the default of {name!r} does not fit its type: {problem}", "change the default or the type")
        return default

    def _scheduled(self, name: str, value: ScheduledValue) -> str:
        problem = self.mismatch(name, _SCHEDULED_EXAMPLES[value.name])
        if problem:
            kind = "date" if value.name == "date" else "datetime"
            self._refuse(f"the default of {name!r} is {value!r}, not of its type", f"write {name}: {kind} = {value!r}")
        return value.name

    def _blame_parameter(self, error: Exception) -> NoReturn:
        for name in self._signature.parameters:
            try:
                TypeAdapter(self._hints[name]).json_schema(schema_generator=_Strict)
            except (*_NO_SCHEMA, _UnsayableError) as own:
                self._blame(f"the type of parameter {name!r}", self._hints[name], own)
        self._blame("the type of a parameter", "?", error)

    def _blame(self, what: str, kind: object, error: Exception) -> NoReturn:
        hint = "use pydantic models, dataclasses, TypedDict, builtins, dates, enums or Literal"
        if getattr(error, "code", None) == "typed-dict-version":
            hint = "import TypedDict from typing_extensions; before Python 3.12 that of typing cannot be inspected"
        words = getattr(kind, "__name__", None) or str(kind)
        reason = str(error).partition("\n")[0].partition(_ADVICE_OF_PYDANTIC)[0]
        self._refuse(f"{what}, {words}, has no JSON schema: {reason}", hint, error)

    def _refuse_lost_numbers(self, python: object, dumped: Json) -> None:
        if _loses_numbers(python, dumped):
            raise ResultError(f"{self._name}() returned NaN or an infinity, which JSON cannot say")

    def _refuse(self, message: str, hint: str, cause: Exception | None = None) -> NoReturn:
        raise definition_error(f"{self._name}(): {message}", hint, self._at) from cause


def _closed_dict(fields: dict[str, Any]) -> Any:
    """Return the type of dicts with these keys and no others. pydantic takes no other TypedDict before Python 3.12."""
    make: Any = typing_extensions.TypedDict
    kind = make("Arguments", fields)
    kind.__pydantic_config__ = ConfigDict(extra="forbid")
    return kind


class _UnsayableError(Exception):
    """Pydantic would only warn about it and leave it out of the schema."""


class _Strict(GenerateJsonSchema):
    def emit_warning(self, kind: JsonSchemaWarningKind, detail: str) -> None:
        raise _UnsayableError(f"{kind}: {detail}")


def jsonable(value: object) -> Json:
    """Return a value of any type pydantic knows as JSON values, sets in an order that is the same in every process.

    Raises PydanticSerializationError or ValueError for what has no JSON form; NaN and infinities stay as they are.
    """
    return _with_sorted_sets(
        _ANY.dump_python(value, by_alias=True), _ANY.dump_python(value, mode="json", by_alias=True)
    )


_ANY: TypeAdapter[Any] = TypeAdapter(Any)


def _loses_numbers(python: object, dumped: Json) -> bool:
    """Return whether a NaN or an infinity in *python* is anything but a text in *dumped*, the same value as JSON."""
    if isinstance(python, float):
        return not math.isfinite(python) and not isinstance(dumped, str)
    if isinstance(python, Mapping) and isinstance(dumped, dict):
        return any(map(_loses_numbers, python.values(), dumped.values()))
    if isinstance(python, list | tuple | set | frozenset) and isinstance(dumped, list):
        return any(map(_loses_numbers, python, dumped))
    return False


def _with_sorted_sets(python: object, dumped: Json) -> Json:
    """Return *dumped*, sorted wherever *python*, the same value before it became JSON, has a set."""
    if isinstance(python, set | frozenset) and isinstance(dumped, list):
        return sorted(dumped, key=canonical)
    if isinstance(python, Mapping) and isinstance(dumped, dict):
        pairs = zip(python.values(), dumped.items(), strict=True)
        return {key: _with_sorted_sets(before, after) for before, (key, after) in pairs}
    if isinstance(python, list | tuple) and isinstance(dumped, list):
        return [_with_sorted_sets(before, after) for before, after in zip(python, dumped, strict=True)]
    return dumped


def _kind_of(value: object) -> str:
    """Return what *value* is, for messages; the value itself may be large, or secret."""
    if value is None:
        return "None"
    if inspect.isawaitable(value):
        return f"a {type(value).__name__} (is an await missing?)"
    return f"a {type(value).__name__}"


def _mismatch(adapter: TypeAdapter[Any], value: Json) -> str | None:
    try:
        adapter.validate_json(canonical(value), by_alias=True, by_name=True)
    except ValidationError as error:
        return _problems(error)
    return None


def _problems(error: ValidationError) -> str:
    found = error.errors(include_url=False, include_context=False, include_input=False)
    return "; ".join(": ".join(filter(None, (".".join(map(str, one["loc"])), one["msg"]))) for one in found[:5])

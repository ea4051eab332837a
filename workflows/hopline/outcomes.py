"""``Ok`` and ``Err``: what became of one element of ``map_settled``.

In JSON they are ``{"ok": value}`` and ``{"err": {"type": ..., "message": ..., "status": ...}}``.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Generic, TypeVar

if TYPE_CHECKING:
    from pydantic import GetCoreSchemaHandler
    from pydantic_core import CoreSchema

R_co = TypeVar("R_co", covariant=True)


@dataclass(frozen=True, slots=True)
class Ok(Generic[R_co]):
    """The element has a result."""

    value: R_co

    # What pydantic is to do with one. Said so because it passes over hooks of generic dataclasses.
    __pydantic_config__: ClassVar[dict[str, Any]] = {
        "alias_generator": {"value": "ok"}.__getitem__,
        "extra": "forbid",
        "revalidate_instances": "always",
    }


@dataclass(frozen=True, slots=True)
class Err:
    """The element failed for good: all its attempts are used up."""

    type: str
    """Name of the error's class, such as ``ValueError``; of an HTTP step that was answered 404, ``HTTP404``."""
    message: str
    status: int | None = None
    """HTTP status of the answer, where that is what failed."""

    @classmethod
    def __get_pydantic_core_schema__(cls, source: Any, handler: "GetCoreSchemaHandler") -> "CoreSchema":
        """Return how pydantic reads and writes one; called where there is pydantic already."""
        from pydantic_core import core_schema

        said = {
            "type": core_schema.typed_dict_field(core_schema.str_schema()),
            "message": core_schema.typed_dict_field(core_schema.str_schema()),
            "status": core_schema.typed_dict_field(
                core_schema.nullable_schema(core_schema.int_schema()), required=False
            ),
        }
        inner = core_schema.typed_dict_schema(said, extra_behavior="forbid")
        whole = core_schema.typed_dict_schema({"err": core_schema.typed_dict_field(inner)}, extra_behavior="forbid")
        read = core_schema.no_info_after_validator_function(lambda given: cls(**given["err"]), whole)
        return core_schema.json_or_python_schema(
            json_schema=read,
            python_schema=core_schema.union_schema([core_schema.is_instance_schema(cls), read]),
            serialization=core_schema.plain_serializer_function_ser_schema(_as_json, return_schema=whole),
        )


def _as_json(err: Err) -> dict[str, Any]:
    return {"err": {"type": err.type, "message": err.message, "status": err.status}}

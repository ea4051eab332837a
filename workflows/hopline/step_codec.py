"""The types of a step as its callers see them."""

from typing import TYPE_CHECKING, Any

from hopline import source
from hopline.errors import definition_error
from hopline.schema import Codec, codec

if TYPE_CHECKING:
    from hopline.steps import Step


def codec_of(step: "Step[..., Any]") -> Codec:
    """Return the codec of a step; refuse one whose kind and return type contradict each other."""
    own = codec(step.fn)
    if own.is_http and step.kind != "http":
        raise definition_error(
            f"{step.name}() returns a request, which nothing would send", "use @http", source.of_function(step.fn)
        )
    if step.kind == "http" and not own.is_http:
        raise definition_error(
            f"{step.name}() is an HTTP step but does not return a request",
            "annotate it -> Request[Answer], with the type of the JSON that the answer is",
            source.of_function(step.fn),
        )
    return own


def found_schema(step: "Step[..., Any]", schema: Any) -> Any:
    """Return the schema of what a step gives to its callers: of a sensor, without the None for "not yet"."""
    if step.policy.every is None:
        return schema
    options = schema.get("anyOf", [])
    found = [option for option in options if option != {"type": "null"}]
    if not found or len(found) == len(options):
        raise definition_error(
            f"{step.name}() is a sensor and cannot say that there is nothing yet",
            "annotate what it returns with -> Found | None; None means that it is to look again",
            source.of_function(step.fn),
        )
    others = {keyword: value for keyword, value in schema.items() if keyword != "anyOf"}
    return {**others, **(found[0] if len(found) == 1 else {"anyOf": found})}

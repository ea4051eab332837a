"""The page on which a person decides: plain HTML, made from the schema of the form; no scripts, nothing from elsewhere.

Everything that comes from users is escaped where it is put in.
"""

import base64
import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from html import escape
from typing import Any, Final

from starlette.responses import Response

from hopline_engine.api.asked import ApprovalAnswer
from hopline_engine.api.models import ApprovalDetail, iso_time
from hopline_engine.core.strict_json import StrictJsonError, parse
from hopline_engine.errors import InvalidApprovalError

Given = Mapping[str, Sequence[str]]
"""What was filled in, by name of the field."""

_STYLE: Final = """
body{font:16px/1.5 system-ui,sans-serif;max-width:40rem;margin:3rem auto;padding:0 1rem;color:#1b1b1b;background:#fff}
h1{font-size:1.4rem;white-space:pre-wrap;overflow-wrap:anywhere}
label{display:block;margin:1rem 0 .25rem;font-weight:600}
input,select,textarea{font:inherit;width:100%;box-sizing:border-box;padding:.4rem}
input,select,textarea,button{border:1px solid #767676;border-radius:4px}
input[type=checkbox]{width:auto}
button{font:inherit;padding:.5rem 1.25rem;margin:1.5rem .75rem 0 0;background:#fff}
button[value=approve]{background:#145c32;border-color:#145c32;color:#fff}
.problem{color:#9b1c1c;font-weight:600}
.facts{color:#555}
@media(prefers-color-scheme:dark){body{background:#16181c;color:#eee}input,select,textarea,button{background:#22262c;color:#eee}
.problem{color:#ff9d9d}.facts{color:#aaa}}
"""
_STYLE_HASH: Final = base64.b64encode(hashlib.sha256(_STYLE.encode()).digest()).decode()
_HEADERS: Final = {
    "content-security-policy": (
        f"default-src 'none'; style-src 'sha256-{_STYLE_HASH}'; form-action 'self'; base-uri 'none'; "
        "frame-ancestors 'none'"
    ),
    # Without a referrer, browsers do not say either which page sends a form, and such a form is refused.
    "referrer-policy": "same-origin",
}
_FIELD: Final = "form."
"""Before the names of the form's own fields."""
_SHOWN: Final = 100
"""Characters of what was filled in wrongly."""


def page(detail: ApprovalDetail, given: Given, problems: Sequence[str], status: int) -> Response:
    """Return the page of a question: to be answered, or with its answer."""
    parts = [f"<h1>{escape(detail.prompt)}</h1>", f'<p class="facts">{_facts(detail)}</p>']
    if detail.state == "open":
        parts += [f'<p class="problem" role="alert">{escape(problem)}</p>' for problem in problems]
        parts.append(_form(detail, given))
    else:
        parts.append(f"<p><strong>{_outcome(detail)}</strong></p>")
    return _html("".join(parts), status)


def notice(title: str, text: str, status: int) -> Response:
    """Return a page that only says something."""
    return _html(f"<h1>{escape(title)}</h1><p>{escape(text)}</p>", status)


def answer_in(given: Given, schema: Mapping[str, Any] | None) -> ApprovalAnswer:
    """Return the decision in what was sent from the page.

    Raises:
        InvalidApprovalError: it is none, or a field is not filled in as it must be.
    """
    approved = {"approve": True, "reject": False}.get(_one(given, "decision"))
    by = _one(given, "by").strip()
    if approved is None or not 0 < len(by) <= 200:
        raise InvalidApprovalError(problems=["say who decides"])
    form = None
    if schema is not None and approved:
        form = {name: value for name, field in _fields(schema) if (value := _value(given, name, field)) is not None}
    return ApprovalAnswer(approved=approved, by=by, form=form)


def _facts(detail: ApprovalDetail) -> str:
    facts = [f"{detail.workflow}, step {detail.step} of run {detail.run}, asked {iso_time(detail.asked_at)}"]
    if detail.to:
        facts.append(f"for {', '.join(detail.to)}")
    if detail.expires_at is not None and detail.state == "open":
        facts.append(f"to be decided until {iso_time(detail.expires_at)}")
    return escape("; ".join(facts))


def _outcome(detail: ApprovalDetail) -> str:
    if detail.state == "closed":
        return "It ended without a decision: its time was over, or its run was cancelled."
    at = iso_time(detail.decided_at) if detail.decided_at is not None else ""
    return escape(f"It was {detail.state} by {detail.by} at {at}.")


def _form(detail: ApprovalDetail, given: Given) -> str:
    schema: Mapping[str, Any] = detail.form_schema or {}
    fields = list(_fields(schema))
    required = _resolved(schema, schema.get("$defs", {})).get("required", ())
    parts = [_field(name, schema, given, is_required=name in required) for name, schema in fields]
    by = escape(_one(given, "by"))
    parts.append(
        f'<label for="by">Your name</label><input id="by" name="by" value="{by}" required maxlength="200" '
        'autocomplete="name">'
    )
    # Rejecting needs nothing but a name, so that the form's own fields do not stand in its way.
    buttons = (
        '<button name="decision" value="approve">Approve</button>'
        '<button name="decision" value="reject" formnovalidate>Reject</button>'
    )
    return f'<form method="post">{"".join(parts)}{buttons}</form>'


def _field(name: str, schema: Mapping[str, Any], given: Given, *, is_required: bool) -> str:
    field, title = escape(_FIELD + name), escape(schema.get("title", name.replace("_", " ")))
    text = _one(given, _FIELD + name) or _text_of(schema.get("default"))
    label = f'<label for="{field}">{title}</label>'
    common = f'id="{field}" name="{field}"' + (" required" if is_required else "")
    if "enum" in schema:
        options = ("" if is_required else "<option></option>") + "".join(
            f"<option{' selected' if _text_of(option) == text else ''}>{escape(_text_of(option))}</option>"
            for option in schema["enum"]
        )
        return f"{label}<select {common}>{options}</select>"
    match schema.get("type"):
        case "boolean":
            checked = " checked" if text == "true" else ""
            return f'{label}<input type="checkbox" id="{field}" name="{field}" value="true"{checked}>'
        case "integer":
            return f'{label}<input type="number" step="1" {common} value="{escape(text)}">'
        case "number":
            return f'{label}<input type="number" step="any" {common} value="{escape(text)}">'
        case "string":
            kind = {"date": "date", "email": "email"}.get(schema.get("format", ""), "text")
            return f'{label}<input type="{kind}" {common} value="{escape(text)}">'
        case _:
            return f"{label}<textarea {common} rows=4 placeholder=JSON>{escape(text)}</textarea>"


def _fields(schema: Mapping[str, Any]) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Yield the fields of a form with their schemas, references followed."""
    definitions = schema.get("$defs", {})
    for name, field in _resolved(schema, definitions).get("properties", {}).items():
        options = [_resolved(option, definitions) for option in field.get("anyOf", [field])]
        known = [option for option in options if option.get("type") != "null"]
        found = known[0] if len(known) == 1 else {}
        yield name, {**found, **{key: field[key] for key in ("default", "title") if key in field}}


def _resolved(schema: Mapping[str, Any], definitions: Mapping[str, Any]) -> Mapping[str, Any]:
    reference = schema.get("$ref")
    return schema if reference is None else definitions.get(str(reference).rpartition("/")[2], {})


def _value(given: Given, name: str, schema: Mapping[str, Any]) -> Any:
    """Return what a field says as JSON; ``None`` if it was left empty."""
    text = _one(given, _FIELD + name)
    if schema.get("type") == "boolean":
        return text == "true"
    if not text:
        return "" if schema.get("type") == "string" and _FIELD + name in given and "enum" not in schema else None
    if "enum" in schema:
        return next((option for option in schema["enum"] if _text_of(option) == text), text)
    if schema.get("type") == "string":
        return text
    try:
        return parse(text.encode())
    except StrictJsonError:
        shown = text[:_SHOWN]
        raise InvalidApprovalError(problems=[f"{name}: {shown!r} is not what belongs there"]) from None


def _text_of(value: Any) -> str:
    if value is None:
        return ""
    return value if isinstance(value, str) else json.dumps(value)


def _one(given: Given, name: str) -> str:
    return next(iter(given.get(name, ())), "")


def _html(body: str, status: int) -> Response:
    html = (
        '<!doctype html><html lang="en"><head><meta charset="utf-8"><title>Approval</title>'
        f'<meta name="viewport" content="width=device-width"><style>{_STYLE}</style></head>'
        f"<body><main>{body}</main></body></html>"
    )
    return Response(html, status, _HEADERS, "text/html; charset=utf-8")

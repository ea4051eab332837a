"""The version of a workflow: what changes it, and what must not."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel, Field

from hopline import Queue, Request, Retry, Workflow, http, step, workflow
from hopline.definition import canonical, digest_of

SOURCE = '''
"""{doc}"""
from dataclasses import dataclass
from datetime import date
from enum import Enum
from typing import Literal, Union

from pydantic import BaseModel, Field

from hopline import Queue, Request, Retry, http, secret, step, workflow
{comment}

class Colour(Enum):
    """{doc}"""
    RED = "red"
    BLUE = "blue"


class Shop(BaseModel):
    """{doc}"""
    id: str = Field(description="{doc}", title="{doc}")
    tags: set[str] = {{"north", "south", "east", "west"}}
    colour: Colour = Colour.RED


def elsewhere():
    class Shop(BaseModel):
        """{doc}"""
        number: int
    return Shop


Other = elsewhere()


@dataclass
class Pair:
    left: Shop
    right: Other  # type: ignore


@step(retry=Retry(3, on=(TimeoutError, 429)), queue=Queue("erp", rate="10/s"))
def load(day: date, words: frozenset[str] = frozenset({{"a", "b", "c", "d"}})) -> list[Pair]:
    """{doc}"""
    return [{body}]


@http(timeout="30s")
def send(pair: Pair, kind: Literal["x", "y"] = "x") -> Request[Union[Shop, None]]:
    {comment}
    return http.post(f"https://a.example.com/{{pair.left.id}}", json={{"b": pair, "a": {{"z", "y", "x"}}}},
                     headers={{"Authorization": f"Bearer {{secret('T')}}"}})


@workflow
def child(day: date) -> list[Union[Shop, None]]:
    """{doc}"""
    return send.map(load(day, {{"q", "w", "e", "r", "t"}}))


@workflow
def main(days: list[date], shop: Shop = Shop(id="main", tags={{"x", "y", "z"}})) -> list[list[Union[Shop, None]]]:
    {comment}
    return child.using(max_parallel=3).map(days)


if __name__ == "__main__":
    print(main.compile().digest, load.signature, send.signature)
'''


def digest_in(folder: Path, name: str, seed: str, *, module: bool = False, **words: str) -> str:
    folder.mkdir(parents=True)
    file = folder / f"{name}.py"
    file.write_text(SOURCE.format(**{"doc": "One.", "comment": "", "body": "", **words}))
    run = [str(file)]
    if module:
        run = ["-c", f"import {name} as m; print(m.main.compile().digest, m.load.signature, m.send.signature)"]
    finished = subprocess.run(
        [sys.executable, "-W", "error", *run],
        env={
            **os.environ,
            "PYTHONHASHSEED": seed,
            "PYTHONPATH": os.pathsep.join([*sys.path, str(folder)]),
            "TZ": "UTC",
        },
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
    )
    assert finished.returncode == 0, finished.stderr
    return finished.stdout.strip()


def test_digest_is_the_same_in_every_process_folder_and_spelling(tmp_path: Path) -> None:
    first = digest_in(tmp_path / "a", "sales", "0")
    assert len(first.split()[0]) == 64
    others = [
        digest_in(tmp_path / "b" / "deeper", "other__name", "1", module=True),
        digest_in(tmp_path / "c", "sales", "777", doc="Two: quite another text.", comment="# a comment\n    # more"),
        digest_in(tmp_path / "d", "sales", "random", body="\n\n    # nothing\n    "),
    ]
    assert set(others) == {first}


@step
def first() -> int:
    return 1


@step
def second(a: int, b: int = 0) -> int:
    return a + b


def version(body: Callable[[], Any]) -> str:
    def wired() -> Any:
        return body()

    return workflow(wired).compile().digest


def test_every_compilation_has_the_same_digest() -> None:
    assert version(lambda: second(first(), first())) == version(lambda: second(a=first(), b=first()))


def test_default_said_is_default_left_out() -> None:
    assert version(lambda: second(first())) == version(lambda: second(first(), 0))


@pytest.mark.parametrize(
    "changed",
    [
        lambda: second(first(), 1),
        lambda: second(first(), first()),
        lambda: [second(first())],
        lambda: second.after(first())(first()),
        lambda: second.using(retry=Retry(2))(first()),
        lambda: second.using(timeout="1s")(first()),
        lambda: second.using(deadline="1s")(first()),
        lambda: second.using(queue="erp")(first()),
        lambda: second.using(queue=Queue("erp"))(first()),
        lambda: second.using(queue=Queue("erp", rate="1/s"))(first()),
        lambda: second.using(max_parallel=2)(first()),
        lambda: second.map([first()]),
    ],
)
def test_change_of_graph_or_policy_changes_the_digest(changed: Callable[[], Any]) -> None:
    assert version(changed) != version(lambda: second(first()))


def test_change_of_a_type_changes_signature_and_digest() -> None:
    def made(kind: Any, name: str = "one") -> tuple[str, Workflow[..., Any]]:
        def give() -> None: ...

        give.__annotations__["return"] = kind
        give.__name__ = name
        given = step(give)

        def wired() -> Any:
            return given()

        return given.signature, workflow(wired)

    class Plain(BaseModel):
        a: int

    class Bounded(BaseModel):
        a: int = Field(ge=0)

    kinds = [made(Plain), made(Bounded), made(int), made(int, "two")]
    assert len({signature for signature, _ in kinds}) == 4
    assert len({one.compile().digest for _, one in kinds}) == 4
    assert all(len(signature) == 16 for signature, _ in kinds)


def test_signature_is_the_hash_of_name_parameters_and_result() -> None:
    parameters = {
        "type": "object",
        "properties": {"a": {"type": "integer"}, "b": {"type": "integer", "default": 0}},
        "required": ["a"],
        "additionalProperties": False,
        "$defs": {},
    }
    assert second.signature == digest_of(["second", parameters, {"type": "integer"}])[:16]


def test_signature_is_the_same_for_every_use_of_a_step() -> None:
    assert second.using(timeout="1s").after(first).signature == second.signature


def test_fields_declared_in_another_order_are_the_same_version() -> None:
    def made(*fields: str) -> str:
        kind = type("Row", (BaseModel,), {"__annotations__": dict.fromkeys(fields, int), "__module__": __name__})

        def give() -> None: ...

        give.__annotations__["return"] = kind
        return step(give).signature

    assert made("a", "b", "c") == made("c", "a", "b")


def test_digest_is_of_the_canonical_json() -> None:
    @http
    def ping() -> Request[int]:
        return http.get("https://a.example.com/ä")

    @workflow
    def wired() -> int:
        return ping()

    definition = wired.compile()
    assert definition.canonical() == canonical(definition.to_json())
    assert "ä".encode() in definition.canonical()
    assert definition.digest == digest_of(definition.to_json())


plain = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"])),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from("abcdef"), inner, max_size=5),
)


def turned(value: Any) -> Any:
    """Return the same value with all its objects filled in the opposite order."""
    if isinstance(value, dict):
        return {key: turned(member) for key, member in reversed(value.items())}
    return [turned(member) for member in value] if isinstance(value, list) else value


@given(plain)
def test_order_of_keys_is_not_part_of_canonical_json(value: Any) -> None:
    assert canonical(value) == canonical(turned(value))


@given(plain)
def test_canonical_json_reads_back_as_the_value(value: Any) -> None:
    assert json.loads(canonical(value)) == value


@pytest.mark.parametrize("value", [float("nan"), [float("inf")], {"a": "b\0"}, {"a\0": 1}, "\ud800", "\\\0"])
def test_what_cannot_be_stored_has_no_canonical_json(value: Any) -> None:
    with pytest.raises(ValueError, match=r"JSON|NUL|surrogates"):
        canonical(value)


@pytest.mark.parametrize("text", ["\\u0000", "\\\\u0000", "u0000", "\\0"])
def test_text_about_nul_is_no_nul(text: str) -> None:
    assert canonical(text)

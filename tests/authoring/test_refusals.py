"""Everything else that is wrong in a file, each with its line and a hint."""

import functools
import operator
import sys
import typing
from dataclasses import dataclass
from typing import Any

import pytest
from pydantic import BaseModel

from hopline import DefinitionError, Queue, Retry, context, http, secret, step, workflow
from hopline.steps import Step, Workflow
from tests.authoring.refused import refused


class Shop(BaseModel):
    id: str


class Totals(BaseModel):
    shop: str
    eur: float


@dataclass
class Place:
    city: str


NO_JSON = object()


@step
def shop() -> Shop:
    return Shop(id="a")


@step
def shops() -> list[Shop]:
    return []


@step
def name(value: str, times: int = 1) -> str:
    return value * times


@step
def totals(value: Totals) -> None: ...


@step
def effect(value: Any) -> None: ...


# ---------------------------------------------------------------- graph


def test_workflow_that_starts_itself_is_refused() -> None:
    @workflow
    def again(n: int) -> int:
        anything: Any = again
        return anything(n)  # type: ignore[no-any-return]  # refused

    error = refused(again, match="again starts itself: again -> again")
    assert "map over a list" in (error.hint or "")


def test_workflows_that_start_each_other_are_refused() -> None:
    @workflow
    def outer(n: int) -> int:
        return ping(n)

    @workflow
    def ping(n: int) -> int:
        anything: Any = pong
        return anything.map([n])[0]  # type: ignore[no-any-return]

    @workflow
    def pong(n: int) -> int:
        return ping(n)  # refused

    refused(outer, match="ping starts itself: ping -> pong -> ping")


def test_unused_result_is_refused_at_its_call() -> None:
    @workflow
    def wired() -> str:
        first = name("a")  # refused
        name(first)
        name("b")
        return name("c")

    # The second call uses the first; it is the second whose result goes nowhere.
    with pytest.raises(DefinitionError, match="nothing uses the result of name_2 in wired"):
        wired.compile()

    @workflow
    def mapped() -> None:
        name.map(["a"])  # refused

    error = refused(mapped, match="nothing uses the result of name in mapped")
    assert ".after(it)" in (error.hint or "")


def test_result_used_for_order_alone_is_used() -> None:
    @workflow
    def wired() -> None:
        effect.after(name("a"))(1)

    assert len(wired.compile().nodes) == 2


def test_two_functions_of_one_name_are_refused() -> None:
    def other() -> Step[[Any], None]:
        @step
        def effect(value: Any) -> None: ...

        return effect

    second = other()

    @workflow
    def wired() -> None:
        effect(1)
        second(2)  # refused

    refused(wired, match="two functions are named 'effect'")


def test_names_are_unique_over_called_workflows_too() -> None:
    def child() -> Workflow[[], None]:
        @step
        def effect(value: Any) -> None: ...

        @workflow
        def called() -> None:
            effect(1)  # refused

        return called

    called = child()

    @workflow
    def wired() -> None:
        effect(1)
        called()

    refused(wired, match="two functions are named 'effect'")


def test_step_named_like_the_workflow_is_refused() -> None:
    def named() -> Workflow[[], None]:
        @workflow
        def effect() -> None:
            step_called_effect(1)  # refused

        return effect

    step_called_effect = effect
    refused(named(), match="two functions are named 'effect'")


def test_one_queue_with_two_limits_is_refused() -> None:
    @workflow
    def child() -> None:
        effect.using(queue=Queue("erp", rate="2/s"))(1)  # refused

    @workflow
    def wired() -> None:
        effect.using(queue=Queue("erp", rate="1/s"))(1)
        child()

    refused(wired, match="two queues are named 'erp'")


@pytest.mark.parametrize("dep", ["text", None, 5, object()])
def test_order_after_what_is_no_result_is_refused(dep: Any) -> None:
    @workflow
    def wired() -> None:
        effect.after(dep)(1)  # refused

    refused(wired, match="not the result of a step")


def test_order_after_a_parameter_is_refused() -> None:
    @workflow
    def wired(day: str) -> None:
        effect.after(day)(1)  # refused

    refused(wired, match=r"effect\.after\(\) is given <result day>, not the result of a step")


# ---------------------------------------------------------------- calls


@pytest.mark.parametrize(
    ("args", "kwargs", "match"),
    [
        ((), {}, "missing a required argument: 'value'"),
        (("a", 1, 2), {}, "too many positional arguments"),
        (("a",), {"time": 2}, "unexpected keyword argument 'time'"),
        (("a",), {"value": "b"}, "multiple values for argument 'value'"),
    ],
)
def test_wrong_arguments_are_refused(args: tuple[Any, ...], kwargs: dict[str, Any], match: str) -> None:
    @workflow
    def wired() -> str:
        return name(*args, **kwargs)  # refused

    error = refused(wired, match=match)
    assert error.hint == "its parameters are name(value: str, times: int)"


def test_result_that_does_not_fit_the_parameter_is_refused() -> None:
    def wire(value: Any, to: Any) -> DefinitionError:
        @workflow
        def wired() -> None:
            effect(to(value()))  # refused

        return refused(wired)

    assert "value does not fit its type: it is an object, not text" in wire(shop, name).message
    assert "value does not fit its type: it is a list, not text" in wire(shops, name).message
    assert "it has no field 'eur'" in wire(shop, totals).message or "'shop'" in wire(shop, totals).message
    assert "it is a list, not text" in wire(lambda: [shop()], name).message
    assert "it is an object, not text" in wire(lambda: {"a": shop()}, name).message
    assert "in 'eur', it is an object, not a number" in wire(lambda: {"shop": "a", "eur": shop()}, totals).message
    assert "in 'eur', it is text, not a number" in wire(lambda: {"shop": "a", "eur": f"{name('a')}"}, totals).message


@pytest.mark.parametrize("value", [5, None, Shop(id="a"), ["a"]])
def test_value_that_does_not_fit_the_parameter_is_refused(value: Any) -> None:
    @workflow
    def wired() -> None:
        effect(name(value))  # refused

    refused(wired, match=r"name\(\): value does not fit its type")


@pytest.mark.parametrize(
    "value", [object(), print, shop, Shop, (x for x in "ab"), float("inf"), {"a": float("nan")}, b"\xff"]
)
def test_value_that_is_no_json_is_refused(value: Any) -> None:
    @workflow
    def wired() -> None:
        effect([value])  # refused

    refused(wired, match=r"effect\(\): value is")


def test_value_inside_itself_is_refused() -> None:
    circle: list[Any] = []
    circle.append(circle)

    @workflow
    def wired() -> None:
        effect(circle)  # refused

    refused(wired, match="RecursionError")


# ---------------------------------------------------------------- paths


def test_path_that_the_type_does_not_have_is_refused_with_what_was_meant() -> None:
    @workflow
    def wired() -> str:
        return name(shop().idd)  # type: ignore[attr-defined]  # refused

    assert refused(wired, match="shop has no 'idd': its type is an object").hint == "did you mean 'id'?"


def test_path_below_a_wrong_path_names_the_place() -> None:
    @workflow
    def wired(shop: Shop) -> None:
        effect(shop.id["x"])  # type: ignore[index]  # refused

    refused(wired, match=r"shop\.id has no 'x': its type is text")


def test_method_of_a_value_is_refused() -> None:
    @workflow
    def wired(shop: Shop) -> None:
        effect(shop.id.upper())  # refused

    assert "call .upper inside a step" in (refused(wired).hint or "")


def test_field_of_a_list_is_refused() -> None:
    @workflow
    def wired() -> None:
        wrong: Any = shops()
        effect(wrong.id)  # refused

    assert refused(wired).hint == "to take a field of every element, map a step over the list"


# ---------------------------------------------------------------- the body


def test_other_exception_of_the_body_is_chained_with_its_line() -> None:
    def helper() -> None:
        raise KeyError("no such shop")  # refused

    @workflow
    def wired() -> None:
        helper()

    error = refused(wired, match=r"wired\(\) raised KeyError: 'no such shop'")
    assert isinstance(error.__cause__, KeyError)


def test_endless_helper_is_refused() -> None:
    def helper(n: int) -> int:
        return helper(n + 1)  # refused

    @workflow
    def wired() -> int:
        return helper(1)

    refused(wired, match="RecursionError")


def test_context_in_the_body_is_refused() -> None:
    @workflow
    def wired() -> None:
        effect(context().run_id)  # refused

    refused(wired, match="context")


def test_bad_duration_in_the_body_is_refused_at_its_line() -> None:
    @workflow
    def wired() -> None:
        effect.using(timeout="5 minutes")(1)  # refused

    assert '"2m30s"' in (refused(wired, match="'5 minutes' is not a duration").hint or "")


def test_bad_retry_in_the_body_is_refused_at_its_line() -> None:
    @workflow
    def wired() -> None:
        effect.using(retry=Retry(0))(1)  # refused

    refused(wired)


def test_error_of_a_called_workflow_stands_even_when_caught() -> None:
    @workflow
    def child() -> None:
        effect.using(timeout="x")(1)  # refused

    @workflow
    def wired() -> None:
        try:
            child()
        except DefinitionError:
            effect(1)

    refused(wired)


# ---------------------------------------------------------------- results


def test_result_of_another_type_is_refused() -> None:
    @workflow
    def wrong_result() -> str:  # refused
        return shop()  # type: ignore[return-value]

    refused(wrong_result, match="wrong_result does not return what it declares: it is an object, not text")

    @workflow
    def nothing() -> str:  # type: ignore[return]  # refused
        effect(1)

    refused(nothing, match="does not return what it declares")

    @workflow
    def value() -> int:  # refused
        return "a"  # type: ignore[return-value]

    refused(value, match="does not return what it declares")


def test_result_built_from_results_is_refused() -> None:
    @workflow
    def built() -> Place:  # refused
        return Place(city=name("a"))

    assert "inside a step" in (refused(built, match="the result of built is a Place made from results").hint or "")


def test_result_that_is_a_generator_is_refused() -> None:
    @workflow
    def lazy() -> Any:  # refused
        return (name(letter) for letter in "ab")

    refused(lazy, match="the result of lazy is a generator")


# ---------------------------------------------------------------- functions


def test_functions_that_cannot_be_steps_are_refused_at_their_def() -> None:
    def generator() -> Any:
        yield 1

    async def agenerator() -> Any:
        yield 1

    def many(*values: int) -> None: ...

    def keywords(**values: int) -> None: ...

    def positional(value: int, /) -> None: ...

    async def asynchronous() -> None: ...

    def größe() -> None: ...

    def named() -> None: ...

    named.__name__ = 401 * "n"
    for decorate, fn in [
        (step, generator),
        (step, agenerator),
        (step, many),
        (step, keywords),
        (step, positional),
        (step, größe),
        (step, named),
        (workflow, asynchronous),
        (http, asynchronous),
    ]:
        wrong: Any = decorate
        with pytest.raises(DefinitionError) as caught:
            wrong(fn)
        assert (caught.value.file, caught.value.line) == (__file__, fn.__code__.co_firstlineno)
        assert caught.value.hint


@pytest.mark.parametrize("thing", [lambda: 1, print, Shop, "text", shop])
def test_what_is_no_named_function_is_refused(thing: Any) -> None:
    for decorate in (step, step(timeout="1s"), http, workflow):
        wrong: Any = decorate
        with pytest.raises(DefinitionError) as caught:
            wrong(thing)
        assert caught.value.file == __file__


def test_method_is_refused_at_its_def() -> None:
    with pytest.raises(DefinitionError, match=r"move\(\) is a method") as caught:

        class Robot:
            @step
            def move(self, far: int) -> int:
                return far

    assert "top level" in (caught.value.hint or "")


@pytest.mark.parametrize(
    ("wrong", "hint"),
    [
        (lambda: name.using(retries=3)("a"), "using() takes retry=Retry(3)"),  # type: ignore[call-arg]
        (lambda: name.map(), "write step.map(items)"),  # type: ignore[call-arg]
        (lambda: nowhere("a"), "define 'nowhere', or import it"),  # type: ignore[name-defined]  # noqa: F821
        (lambda: http.post("https://x.example", data={}), "write http.post(url"),  # type: ignore[call-arg]
        (lambda: http.fetch("https://x.example"), "write http.post(url"),  # type: ignore[attr-defined]
        (lambda: name(name), "call it: name(...)"),  # type: ignore[arg-type]
    ],
)
def test_wrong_call_in_a_body_has_a_hint_of_its_own(wrong: Any, hint: str) -> None:
    @workflow
    def wired() -> None:
        wrong()

    with pytest.raises(DefinitionError) as caught:
        wired.compile()
    assert hint in (caught.value.hint or "")


def test_parts_of_lists_that_are_no_paths_have_hints() -> None:
    @step
    def pair() -> tuple[int, str]:
        return 1, "a"

    @workflow
    def changed() -> None:
        anything: Any = shops()
        effect(anything.append(1))  # refused

    @workflow
    def named() -> None:
        anything: Any = pair()
        effect(anything.second)  # refused

    assert "call .append inside a step" in (refused(changed).hint or "")
    assert "pair[0]" in (refused(named).hint or "")


def test_text_that_became_a_number_is_told_without_its_mark() -> None:
    @workflow
    def wired() -> None:
        effect(int(f"{shop().id}"))  # refused

    assert refused(wired).message.endswith("invalid literal for int() with base 10: '<result>'")


def test_missing_annotations_are_refused_at_the_def() -> None:
    def parameter(value) -> None: ...  # type: ignore[no-untyped-def]  # refused

    def result(value: int): ...  # type: ignore[no-untyped-def]  # refused

    def unknown(value: "Nowhere") -> None: ...  # type: ignore[name-defined]  # noqa: F821  # pyright: ignore[reportUndefinedVariable]

    for fn in (parameter, result):
        refused(workflow(fn))
        with pytest.raises(DefinitionError):
            _ = step(fn).signature
    with pytest.raises(DefinitionError, match="an annotation cannot be understood: name 'Nowhere'"):
        workflow(unknown).compile()


def test_type_without_json_schema_is_refused_at_the_def() -> None:
    class Opaque: ...

    def parameter(good: int, bad: Opaque) -> None: ...  # refused

    def result() -> Opaque:  # refused
        return Opaque()

    def function(callback: type) -> None: ...  # refused

    assert "the type of parameter 'bad', Opaque, has no JSON schema" in refused(workflow(parameter)).message
    assert "its return type, Opaque, has no JSON schema" in refused(workflow(result)).message
    assert "arbitrary_types_allowed" not in refused(workflow(result)).message
    assert "'callback'" in refused(workflow(function)).message


def test_default_that_does_not_fit_is_refused_at_the_def() -> None:
    def type_of(number: int = "x") -> None: ...  # type: ignore[assignment]  # refused

    def form(value: Any = NO_JSON) -> None: ...  # refused

    def nul(text: str = "a\0b") -> None: ...  # refused

    assert "the default of 'number' does not fit its type" in refused(workflow(type_of)).message
    assert "the default of 'value' cannot be written as JSON" in refused(workflow(form)).message
    assert "the default of 'text' cannot be written as JSON" in refused(workflow(nul)).message


def test_default_of_a_step_that_is_known_only_in_the_run_is_refused_at_the_def() -> None:
    @workflow
    def wired() -> None:
        first = name("a")

        @step
        def inner(value: str = first) -> None: ...  # refused

        inner()

    refused(wired, match="the default of 'value' is <result name>")

    @workflow
    def secretive(token: str = secret("TOKEN")) -> None:  # refused
        effect(token)

    refused(secretive, match=r"the default of 'token' is secret\('TOKEN'\)")


def test_error_says_what_where_and_what_to_do() -> None:
    error = DefinitionError("a is wrong", "file.py", 7, "do b")
    assert str(error) == "a is wrong (file.py:7)\nhint: do b"
    assert (error.message, error.file, error.line, error.hint) == ("a is wrong", "file.py", 7, "do b")
    assert str(DefinitionError("a is wrong")) == "a is wrong"


# ---------------------------------------------------------------- lines


def test_line_is_that_of_the_function_which_a_decorator_wraps() -> None:
    def noisy(fn: Any) -> Any:
        @functools.wraps(fn)
        def wrapper(*args: Any, **kwargs: Any) -> Any:
            return fn(*args, **kwargs)

        return wrapper

    @workflow
    @noisy
    def wired(shop: Shop) -> None:
        effect(len(shop.id))  # refused

    @workflow
    @noisy
    def unused(shop: Shop) -> Shop:  # refused
        return effect(shop)  # type: ignore[return-value]

    refused(wired, match="len")
    refused(unused, match="does not return what it declares: it is null, not an object")


def test_line_of_a_call_made_by_a_library_is_that_of_the_body() -> None:
    @workflow
    def wired(shops: list[Shop]) -> None:
        consume = functools.partial(effect.using, timeout="1s")
        effect(functools.reduce(lambda a, b: a, [shops, shops]))
        first: Any = shops[0]
        consume()(operator.itemgetter("idd")(first))  # refused

    refused(wired, match=r"shops\.0 has no 'idd'")


@pytest.mark.skipif(sys.version_info >= (3, 12), reason="typing.TypedDict can be inspected from Python 3.12 on")
def test_typed_dict_that_cannot_be_inspected_is_refused_with_the_one_that_can() -> None:
    class Options(typing.TypedDict):
        deep: bool

    def wired(options: Options) -> None: ...  # refused

    assert "typing_extensions" in (refused(workflow(wired)).hint or "")

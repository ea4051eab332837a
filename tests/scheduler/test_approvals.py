"""Approvals: people decide on a page, by command or by the API; on each kind of store."""

import re
from pathlib import Path
from typing import Any, Literal

import httpx
import pytest
from pydantic import BaseModel

from hopline import approval, workflow
from hopline_engine.api.guard import OPEN
from tests.support.running_engine import RunningEngine, running_engine
from tests.support.waiting import WITHIN

pytestmark = pytest.mark.anyio

EVIL = "<script>alert(1)</script>\"'&"


class Review(BaseModel):
    reason: str
    score: int = 3
    urgent: bool = False
    kind: Literal["a", "b"] = "a"


@workflow
def publish(total: float) -> bool:
    return approval(f"Publish {total} EUR?", to=["finance@example.com"], timeout="2h").approved


@workflow
def review(prompt: str) -> Any:
    return approval(prompt, form=Review)


@workflow
def soon() -> Any:
    return approval("Quick!", timeout="200ms")


async def detail_of(engine: RunningEngine, run: str) -> dict[str, Any]:
    return await engine.client.ask("GET", f"/approvals/{run}/approval")


async def on_page(link: str, **form: str) -> httpx.Response:
    """Look at a page as a browser does, or send its form."""
    async with httpx.AsyncClient(trust_env=False, timeout=WITHIN) as browser:
        if not form:
            return await browser.get(link)
        fields = {name.replace("form_", "form."): value for name, value in form.items()}
        return await browser.post(link, data=fields, headers={"Origin": link.partition("/api")[0]})


async def test_person_approves_on_the_page(engine: RunningEngine) -> None:
    await engine.register(publish)
    run = await engine.client.start("publish", {"total": 12.5})
    detail = await detail_of(engine, run)
    assert (detail["prompt"], detail["to"], detail["state"]) == ("Publish 12.5 EUR?", ["finance@example.com"], "open")
    page = await on_page(detail["link"])
    assert page.status_code == 200
    assert "Publish 12.5 EUR?" in page.text
    assert "default-src 'none'" in page.headers["content-security-policy"]
    done = await on_page(detail["link"], decision="approve", by="Ada")
    assert "It was approved by Ada at " in done.text
    assert (await engine.client.ended(run))["result"] is True
    again = await on_page(detail["link"], decision="reject", by="Eve")
    assert (again.status_code, "It was approved by Ada" in again.text) == (409, True), "a link is of use once"
    (kept,) = (await engine.client.ask("GET", "/approvals", params={"state": "all"}))["approvals"]
    assert (kept["state"], kept["by"], kept["form"]) == ("approved", "Ada", None)
    assert (await engine.client.ask("GET", "/approvals"))["approvals"] == []


async def test_form_is_made_from_the_model_and_checked(engine: RunningEngine) -> None:
    await engine.register(review)
    run = await engine.client.start("review", {"prompt": "Is it good?"})
    link = (await detail_of(engine, run))["link"]
    page = (await on_page(link)).text
    assert re.search(r'<input type="text" id="form.reason" name="form.reason" required', page)
    assert re.search(r'<input type="number" step="1" id="form.score" name="form.score" value="3">', page)
    assert '<input type="checkbox" id="form.urgent"' in page
    assert "<option selected>a</option><option>b</option>" in page
    for score in ("many", "NaN", "1e999", "[" * 10_000, r'"\ud800"'):
        wrong = await on_page(link, decision="approve", by="Ada", form_reason="fine", form_score=score)
        assert (wrong.status_code, "is not what belongs there" in wrong.text) == (422, True)
        assert 'value="fine"' in wrong.text, "what was filled in is not lost"
    assert "score: &#x27;&quot;" in wrong.text
    await on_page(link, decision="approve", by="Ada", form_reason="fine", form_score="4", form_kind="b")
    result = (await engine.client.ended(run))["result"]
    assert (result["approved"], result["by"]) == (True, "Ada")
    assert result["form"] == {"reason": "fine", "score": 4, "urgent": False, "kind": "b"}


async def test_form_that_no_browser_sends_is_refused_and_can_be_sent_again(engine: RunningEngine) -> None:
    await engine.register(review)
    run = await engine.client.start("review", {"prompt": "Is it good?"})
    link = (await detail_of(engine, run))["link"]
    deep = await on_page(link, decision="approve", by="Ada", form_reason="fine", form_score="[" * 100_000)
    assert (deep.status_code, "is not what belongs there" in deep.text) == (422, True)
    many = await on_page(link, decision="approve", by="Ada", **{f"form_{number}": "x" for number in range(1000)})
    assert (many.status_code, many.json()["error"]["message"]) == (422, "the form has more than 1000 fields")
    await on_page(link, decision="approve", by="Ada", form_reason="fine", form_score="4")
    assert (await engine.client.ended(run))["result"]["approved"] is True


async def test_rejecting_needs_no_form(engine: RunningEngine) -> None:
    await engine.register(review)
    run = await engine.client.start("review", {"prompt": "Is it good?"})
    await on_page((await detail_of(engine, run))["link"], decision="reject", by="Ada")
    result = (await engine.client.ended(run))["result"]
    assert (result["approved"], result["form"]) == (False, None)


async def test_nothing_of_users_is_markup_on_the_page(engine: RunningEngine) -> None:
    await engine.register(review)
    run = await engine.client.start("review", {"prompt": EVIL})
    link = (await detail_of(engine, run))["link"]
    pages = [await on_page(link), await on_page(link, decision="approve", by=EVIL, form_reason=EVIL, form_score=EVIL)]
    pages.append(await on_page(link, decision="approve", by=EVIL, form_reason=EVIL, form_score="1", form_kind="a"))
    assert [page.status_code for page in pages] == [200, 422, 200]
    assert all("<script" not in page.text for page in pages)


async def test_link_of_another_step_or_time_is_refused(engine: RunningEngine) -> None:
    await engine.register(publish)
    runs = [await engine.client.start("publish", {"total": 1.0}) for _ in range(2)]
    links = [(await detail_of(engine, run))["link"] for run in runs]
    assert (await on_page(links[0].replace(runs[0], runs[1]))).status_code == 403
    expires = int(re.search(r"expires=(\d+)", links[0])[1])  # type: ignore[index]
    assert (await on_page(links[0].replace(str(expires), str(expires + 1)))).status_code == 403
    assert (
        await on_page(re.sub(r"signature=.*", "signature=x", links[0]), decision="approve", by="Eve")
    ).status_code == 403


async def test_expired_link_is_refused(tmp_path: Path) -> None:
    async with running_engine(tmp_path, approval_link_seconds=0.001) as engine:
        await engine.register(publish)
        run = await engine.client.start("publish", {"total": 1.0})
        assert (await on_page((await detail_of(engine, run))["link"])).status_code == 410


def test_page_alone_needs_no_token_of_the_api() -> None:
    assert OPEN.fullmatch("/api/v1/approvals/r_1/approval/page")
    for path in ("", "/r_1/approval", "/page", "/r_1/approval/page/more", "/r_1/a/b/page"):
        assert not OPEN.fullmatch(f"/api/v1/approvals{path}")


async def test_decision_by_the_api_is_checked(engine: RunningEngine) -> None:
    await engine.register(review)
    run = await engine.client.start("review", {"prompt": "Is it good?"})
    path = f"/approvals/{run}/approval"
    missing = await engine.client.http.post(path, json={"approved": True, "by": "Ada"})
    assert (missing.status_code, missing.json()["error"]["code"]) == (422, "invalid-approval")
    wrong = await engine.client.http.post(path, json={"approved": True, "by": "Ada", "form": {"score": 1}})
    assert (wrong.status_code, wrong.json()["error"]["code"]) == (422, "invalid-approval")
    assert "['form']: 'reason' is a required property" in wrong.json()["error"]["message"]
    done = await engine.client.ask("POST", path, json={"approved": True, "by": "Ada", "form": {"reason": "x"}})
    assert (done["state"], done["link"]) == ("approved", None)
    twice = await engine.client.http.post(path, json={"approved": False, "by": "Eve"})
    assert (twice.status_code, twice.json()["error"]["code"]) == (409, "approval-not-open")


async def test_nobody_decides_in_time(engine: RunningEngine) -> None:
    await engine.register(soon)
    run = await engine.client.start("soon")
    ended = await engine.client.ended(run)
    assert (ended["error"]["type"], ended["error"]["message"]) == ("TimeoutError", "nobody decided within 0.2 s")
    assert (await detail_of(engine, run))["state"] == "closed"


async def test_run_says_whose_decision_it_waits_for_and_where(tmp_path: Path, store: str) -> None:
    async with running_engine(tmp_path, store=store) as engine:
        await engine.register(publish)
        run = await engine.client.start("publish", {"total": 1.0})
    async with running_engine(tmp_path, store=store) as engine:
        (reason,) = (await engine.client.ask("GET", f"/runs/{run}/why"))["reasons"]
        assert reason["reason"] == "waiting_for_approval"
        assert reason["text"].startswith("approval waits for the decision of finance@example.com, until ")
        link = reason["text"].split()[-1]
        assert (await on_page(link, decision="approve", by="Ada")).status_code == 200
        assert (await engine.client.ended(run))["result"] is True

"""``runs fork``, ``pause``, ``resume``, and orders to many runs at once."""

import pytest

from hopline_cli.errors import ExitCode
from tests.cli.conftest import Cli
from tests.cli.fake_api import FakeApi, Json, a_run, a_step


def a_failed_run(run: str, step: str, **fields: object) -> Json:
    error = {"step": step, "type": "ValueError", "message": "bad", "traceback": None}
    found: Json = a_run(run, "failed", a_step(step, "failed"), error=error, **fields)
    return found


@pytest.fixture
def failed(api: FakeApi) -> FakeApi:
    """Two failed runs, of which the first failed in ``charge``."""
    runs = [a_failed_run("r_1", "charge"), a_failed_run("r_2", "ship", workflow="other")]
    api.answer("GET", "/runs", {"runs": runs, "next": None})
    for run in ("r_1", "r_2"):
        api.answer("POST", f"/runs/{run}/retry", a_run(f"{run}_again", "running", retry_of=run), 201)
    return api


def test_pause_and_resume_print_the_id_of_the_run(api: FakeApi, cli: Cli) -> None:
    for order, said in (("pause", "paused"), ("resume", "resumed")):
        api.answer("POST", f"/runs/@last/{order}", a_run("r_1", "running"))
        done = cli("runs", order, "@last")
        assert (done.code, done.out, done.err) == (0, "r_1\n", f"{said} r_1 of daily_etl\n")


def test_cancel_says_that_a_run_undoes_what_it_did_first(api: FakeApi, cli: Cli) -> None:
    api.answer("POST", "/runs/r_1/cancel", a_run("r_1", "cancelling"))
    done = cli("runs", "cancel", "r_1")
    assert done.err == "r_1 of daily_etl undoes what it did before it ends; cancel it again to end it now\n"


def test_retry_sends_the_elements_that_are_run_again(api: FakeApi, cli: Cli) -> None:
    api.answer("POST", "/runs/r_1/retry", a_run("r_2", "running", retry_of="r_1"), 201)
    assert cli("runs", "retry", "r_1", "--items", "totals[3,5-7]", "--items", "load[0]").code == 0
    names = ["totals[3]", "totals[5]", "totals[6]", "totals[7]", "load[0]"]
    assert api.asked_for("POST", "/runs/r_1/retry") == [{"items": names}]


@pytest.mark.parametrize(
    "items",
    [
        "totals", "totals[]", "totals[a]", "totals[3-]", "[3]", "totals[0-99999]", "totals[5-3]",
        f"totals[0-{10**18 - 1}]", f"totals[{'9' * 5000}]",
    ],
)  # fmt: skip
def test_items_that_name_no_elements_are_refused(api: FakeApi, cli: Cli, items: str) -> None:
    assert cli("runs", "retry", "r_1", "--items", items).code == ExitCode.USAGE
    assert api.asked == []


def test_fork_sends_the_step_and_the_arguments_in_their_types(api: FakeApi, cli: Cli) -> None:
    parameters = {"properties": {"amount": {"type": "integer"}, "note": {"type": "string"}}, "required": ["note"]}
    api.definitions["daily_etl"] = {"parameters": {"properties": {}}}  # what the run began with is an older version
    api.answer("GET", f"/workflows/daily_etl/versions/{'d' * 64}", {"parameters": parameters})
    api.answer("GET", "/runs/@last", a_run("r_1"))
    api.answer("POST", "/runs/r_1/fork", a_run("r_2", "running", fork_of="r_1"), 201)
    done = cli("runs", "fork", "@last", "--from", "charge", "amount=5")
    assert (done.code, done.out) == (0, "r_2\n")
    assert api.asked_for("POST", "/runs/r_1/fork") == [{"step": "charge", "input": {"amount": 5}}]


def test_show_says_what_a_run_goes_on_from_and_what_it_reused(api: FakeApi, cli: Cli) -> None:
    steps = [a_step("load", reused=True), a_step("score")]
    api.answer("GET", "/runs/r_2", a_run("r_2", "succeeded", *steps, fork_of="r_1"))
    lines = cli("runs", "show", "r_2").out.splitlines()
    assert "fork of   r_1" in lines
    assert "reused    load" in lines


def test_dry_run_lists_the_runs_and_changes_nothing(failed: FakeApi, cli: Cli) -> None:
    done = cli("runs", "retry", "--where", "state=failed,since=2h", "--dry-run")
    assert [line.split()[0] for line in done.out.splitlines()[1:]] == ["r_1", "r_2"]
    assert done.err == "2 runs (1 of daily_etl, 1 of other) would be retried\n"
    assert [method for method, _, _ in failed.asked] == ["GET"]
    (query,) = failed.asked_for("GET", "/runs")
    assert (query["state"], query["retried"]) == ("failed", "false")
    assert "since" in query


def test_bulk_retry_orders_the_runs_of_its_condition_only(failed: FakeApi, cli: Cli) -> None:
    done = cli("runs", "retry", "--where", "step=charge", "--yes", "--rate", "50/s")
    assert (done.code, done.out, done.err) == (0, "r_1_again\n", "retried 1 of 1 run (1 of daily_etl)\n")
    assert failed.asked_for("POST", "/runs/r_2/retry") == []


def test_bulk_order_asks_with_the_count_before_it_acts(
    failed: FakeApi, cli: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []

    def confirm(text: str, **_: object) -> None:
        asked.append(text)

    monkeypatch.setattr("typer.confirm", confirm)
    assert cli("runs", "retry", "--where", "state=failed").code == 0
    assert asked == ["2 runs (1 of daily_etl, 1 of other) will be retried. Continue?"]


def test_bulk_order_tells_what_was_refused_and_goes_on(failed: FakeApi, cli: Cli) -> None:
    failed.refuse("POST", "/runs/r_1/retry", 409, "run-not-finished", "run r_1 has not finished")
    done = cli("runs", "retry", "--where", "state=failed", "-y")
    assert (done.code, done.out) == (ExitCode.FAILED, "r_2_again\n")
    assert done.err.splitlines()[0] == "r_1: run r_1 has not finished"


def test_bulk_cancel_looks_for_a_step_that_is_open(api: FakeApi, cli: Cli) -> None:
    for run, state in (("r_1", "waiting"), ("r_2", "pending")):
        api.answer("GET", f"/runs/{run}", a_run(run, "running", a_step("charge", state)))
        api.answer("POST", f"/runs/{run}/cancel", a_run(run, "cancelled"))
    api.answer("GET", "/runs", {"runs": [a_run("r_1", "running"), a_run("r_2", "running")], "next": None})
    assert cli("runs", "cancel", "--where", "step=charge", "-y").out == "r_1\n"


@pytest.mark.parametrize(
    "arguments",
    [
        ("retry",),
        ("retry", "r_1", "--where", "state=failed"),
        ("retry", "--where", "state=running"),
        ("retry", "--where", "colour=red"),
        ("retry", "--where", "state"),
        ("retry", "--where", "state=failed,state=failed"),
        ("retry", "--where", "state=failed", "--rate", "fast"),
        ("retry", "--where", "state=failed", "--rate", "0/s"),
        ("retry", "--where", "state=failed", "--items", "a[1]"),
        ("cancel", "--where", "state=failed"),
        ("cancel",),
    ],
)
def test_bulk_orders_that_make_no_sense_are_refused(api: FakeApi, cli: Cli, arguments: tuple[str, ...]) -> None:
    assert cli("runs", *arguments).code == ExitCode.USAGE
    assert api.asked == []

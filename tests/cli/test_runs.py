"""``hopline runs``: data on stdout in the form asked for, talk on stderr, and the exit code that fits."""

import json

import pytest

from hopline_cli.errors import ExitCode
from tests.cli.conftest import Cli
from tests.cli.fake_api import FakeApi, Json, a_bar, a_run, a_step, at

OK = a_run(
    "r_7h2kq9m3xa", "succeeded", a_step("load", attempts=1, bars=[a_bar(0, 1)], started_at=at(0), ended_at=at(1))
)
BAD = a_run(
    "r_2222222222",
    "failed",
    a_step("score", "failed", attempts=5, error={"step": "score", "type": "HTTPError", "message": "HTTP 503"}),
    error={"step": "score", "type": "HTTPError", "message": "HTTP 503 \x1b]0;pwned\x07", "traceback": None},
)


def summary(run: Json) -> Json:
    return {name: value for name, value in run.items() if name not in {"input", "result", "steps"}}


@pytest.fixture
def two_runs(api: FakeApi) -> FakeApi:
    api.answer("GET", "/runs", {"runs": [summary(OK), summary(BAD)], "next": None})
    for run in (OK, BAD):
        api.answer("GET", f"/runs/{run['id']}", run)
    return api


def test_list_in_a_pipe_is_aligned_whole_and_in_utc(two_runs: FakeApi, cli: Cli) -> None:
    done = cli("runs", "list")
    assert done.out.splitlines() == [
        "RUN           WORKFLOW   STATE      STEPS  STARTED                    TOOK  FAILURE",
        "r_7h2kq9m3xa  daily_etl  succeeded    1/1  2026-11-20T02:00:00.000Z  4.4 s",
        "r_2222222222  daily_etl  failed       1/1  2026-11-20T02:00:00.000Z  4.4 s  score HTTP 503 \\x1b]0;pwned\\x07",
    ]
    assert done.err == ""


def test_list_as_json_is_the_array_of_the_api(two_runs: FakeApi, cli: Cli) -> None:
    assert json.loads(cli("runs", "list", "--json").out) == [summary(OK), summary(BAD)]


def test_list_as_json_lines_has_one_run_a_line(two_runs: FakeApi, cli: Cli) -> None:
    assert [json.loads(line)["id"] for line in cli("runs", "list", "--jsonl").out.splitlines()] == [OK["id"], BAD["id"]]


def test_quiet_list_is_ids_only(two_runs: FakeApi, cli: Cli) -> None:
    assert cli("runs", "list", "-q").out == f"{OK['id']}\n{BAD['id']}\n"


def test_empty_list_says_so_on_stderr_and_keeps_stdout_empty(api: FakeApi, cli: Cli) -> None:
    api.answer("GET", "/runs", {"runs": [], "next": None})
    done = cli("runs", "list")
    assert (done.code, done.out, done.err) == (0, "", "no runs\n")
    assert cli("runs", "list", "--json").out == "[]\n"


def test_filters_of_a_list_go_to_the_server(two_runs: FakeApi, cli: Cli) -> None:
    cli("runs", "list", "--state", "failed", "--workflow", "etl", "--since", "2026-11-20", "--limit", "7")
    assert two_runs.asked_for("GET", "/runs") == [
        {"state": "failed", "workflow": "etl", "since": "2026-11-20T00:00:00.000Z", "limit": "7"}
    ]


def test_list_asks_for_further_pages_until_its_limit(api: FakeApi, cli: Cli) -> None:
    api.answer("GET", "/runs", {"runs": [summary(OK)] * 2, "next": "r_next"})
    assert len(cli("runs", "list", "--limit", "5", "-q").out.splitlines()) == 6
    assert [query.get("after") for query in api.asked_for("GET", "/runs")] == [None, "r_next", "r_next"]


def test_show_in_a_pipe_has_the_run_and_a_table_of_steps(two_runs: FakeApi, cli: Cli) -> None:
    lines = cli("runs", "show", BAD["id"]).out.splitlines()
    assert "state     failed" in lines
    assert "error     score HTTP 503 \\x1b]0;pwned\\x07" in lines
    assert lines[-1].split() == ["score", "failed", "5", "-", "-", "HTTP", "503", "·", "5", "attempts"]


def test_attempts_of_a_map_are_not_one_number(api: FakeApi, cli: Cli) -> None:
    items = {"total": 3, "succeeded": 3, "failed": 0, "running": 0}
    api.answer("GET", "/runs/r_1", a_run("r_1", "succeeded", a_step("each", items=items)))
    assert cli("runs", "show", "r_1").out.splitlines()[-1].split()[:3] == ["each", "succeeded", "-"]


def test_show_tells_priority_and_deadline_of_a_run_and_how_far_that_is_while_it_counts(api: FakeApi, cli: Cli) -> None:
    later = "2226-11-20T02:00:00.000Z"
    for state, shown in (("running", f"deadline  {later} (in "), ("succeeded", f"deadline  {later}")):
        api.answer("GET", "/runs/r_1", a_run("r_1", state, deadline_at=later, priority=-2))
        assert "priority  -2" in cli("runs", "show", "r_1").out.splitlines()
        (told,) = [line for line in cli("runs", "show", "r_1").out.splitlines() if line.startswith("deadline")]
        assert told.startswith(shown)
        assert told.endswith(")" if state == "running" else later)


def test_show_as_json_is_what_the_api_said(two_runs: FakeApi, cli: Cli) -> None:
    done = cli("runs", "show", BAD["id"], "--json")
    assert json.loads(done.out) == BAD
    assert "\x1b" not in done.out


def test_reference_is_sent_as_one_path_segment(two_runs: FakeApi, cli: Cli) -> None:
    two_runs.answer("GET", "/runs/@last", OK)
    assert cli("runs", "show", "@last").code == 0
    assert cli("runs", "show", "../queues").code == ExitCode.NOT_FOUND
    assert two_runs.asked[-1][1] == "/runs/../queues"


def test_unknown_run_exits_with_not_found_and_the_servers_hint(api: FakeApi, cli: Cli) -> None:
    api.refuse("GET", "/runs/r_x", 404, "run-not-found", 'there is no run "r_x"', "hopline runs list")
    done = cli("runs", "show", "r_x")
    assert done.code == ExitCode.NOT_FOUND
    assert done.err == 'error[run-not-found]: there is no run "r_x"\nhint: hopline runs list\n'


@pytest.mark.parametrize(
    "status, code", [(401, 4), (403, 4), (404, 5), (409, 1), (421, 4), (422, 2), (500, 1), (503, 1)]
)
def test_status_of_a_refusal_decides_the_exit_code(api: FakeApi, cli: Cli, status: int, code: int) -> None:
    api.refuse("GET", "/runs/r_x/output", status, "some-code", "because")
    done = cli("runs", "output", "r_x")
    assert (done.code, done.out) == (code, "")
    assert done.err.startswith("error[some-code]: because\n")


def test_answer_that_is_no_api_answer_is_told_as_such(api: FakeApi, cli: Cli) -> None:
    api.answer("GET", "/runs/r_x/output", "Bad Gateway", 502)
    assert "answered HTTP 502" in cli("runs", "output", "r_x").err


def test_output_is_the_result_as_json(api: FakeApi, cli: Cli) -> None:
    api.answer("GET", "/runs/r_1/output", {"result": {"name": "Zoë", "odd": "\x9b31m"}})
    assert cli("runs", "output", "r_1").out == '{\n  "name": "Zoë",\n  "odd": "\\u009b31m"\n}\n'


ATTEMPTS: list[Json] = [
    {
        "step": "totals", "item": 3, "attempt": 1, "state": "failed", "status": 500,
        "started_at": at(0), "ended_at": at(0.5),
        "logs": "first line\n\x1b[31mred\x1b[0m\tline\n",
        "error": {"type": "ValueError", "message": "bad", "traceback": 'File "wf.py", line 3\nValueError: bad\n'},
    },
    {
        "step": "call", "item": None, "attempt": 2, "state": "failed", "status": 503,
        "started_at": at(1), "ended_at": at(3),
        "logs": None, "error": {"type": "HTTPError", "message": "HTTP 503", "traceback": None},
    },
]  # fmt: skip


def test_logs_stand_below_the_attempt_they_are_of(api: FakeApi, cli: Cli) -> None:
    api.answer("GET", "/runs/r_1/logs", {"attempts": ATTEMPTS})
    assert cli("runs", "logs", "r_1").out.splitlines() == [
        "── totals[3] attempt 1  failed  0.5 s  HTTP 500",
        "first line",
        "\\x1b[31mred\\x1b[0m\tline",
        'File "wf.py", line 3',
        "ValueError: bad",
        "── call attempt 2  failed  2.0 s  HTTP 503",
        "HTTPError: HTTP 503",
    ]


def test_logs_of_one_step_and_attempt_are_asked_for(api: FakeApi, cli: Cli) -> None:
    api.answer("GET", "/runs/r_1/logs", {"attempts": []})
    done = cli("runs", "logs", "r_1", "--step", "totals", "--attempt", "2")
    assert api.asked_for("GET", "/runs/r_1/logs") == [{"step": "totals", "attempt": "2"}]
    assert (done.out, done.err) == ("", "no attempt 2 has ended\n")
    assert cli("runs", "logs", "r_1").err == "no attempt has ended yet\n"
    assert cli("runs", "logs", "r_1", "--json").out == "[]\n"


def test_logs_of_a_workflow_that_is_a_step_say_who_has_them(api: FakeApi, cli: Cli) -> None:
    api.answer("GET", "/runs/r_1/logs", {"attempts": []})
    api.answer("GET", "/runs/r_1", a_run("r_1", "failed", a_step("per_shop", "failed", kind="workflow"), a_step("x")))
    assert cli("runs", "logs", "r_1", "--step", "per_shop").err == (
        "per_shop starts runs of their own, which have the attempts\n"
    )
    assert cli("runs", "logs", "r_1", "--step", "x").err == "no attempt has ended yet\n"


def test_why_is_a_sentence_a_step(api: FakeApi, cli: Cli) -> None:
    text = "load waits for score; score is retrying, attempt 3 of 5 at 02:00:46 UTC (in 4 s)"
    reasons = [{"step": "load", "item": None, "reason": "upstream", "text": text}]
    api.answer("GET", "/runs/r_1/why", {"run": "r_1", "state": "running", "reasons": reasons})
    assert cli("runs", "why", "r_1", "load").out == text + "\n"
    assert api.asked_for("GET", "/runs/r_1/why") == [{"step": "load"}]
    assert json.loads(cli("runs", "why", "r_1", "--json").out)["reasons"] == reasons


def test_why_of_an_ended_run_says_that_nothing_waits(api: FakeApi, cli: Cli) -> None:
    api.answer("GET", "/runs/r_1/why", {"run": "r_1", "state": "succeeded", "reasons": []})
    assert cli("runs", "why", "r_1").out == "r_1 succeeded: no step is waiting\n"


def test_cancel_prints_the_id_of_what_was_cancelled(api: FakeApi, cli: Cli) -> None:
    api.answer("POST", "/runs/@last/cancel", a_run("r_1", "cancelled"))
    done = cli("runs", "cancel", "@last")
    assert (done.code, done.out, done.err) == (0, "r_1\n", "cancelled r_1 of daily_etl\n")


def test_retry_prints_the_id_of_the_new_run(api: FakeApi, cli: Cli) -> None:
    api.answer("POST", "/runs/@failed/retry", a_run("r_new", "running", retry_of="r_old"), 201)
    done = cli("runs", "retry", "@failed")
    assert (done.code, done.out) == (0, "r_new\n")
    assert done.err == "r_new retries r_old; watch it with: hopline runs watch r_new\n"


def test_retry_that_the_server_refuses_is_told(api: FakeApi, cli: Cli) -> None:
    api.refuse("POST", "/runs/r_1/retry", 409, "run-not-retryable", "run r_1 succeeded")
    assert cli("runs", "retry", "r_1").code == ExitCode.FAILED


def test_watch_follows_the_events_to_the_end_and_prints_the_result(api: FakeApi, cli: Cli) -> None:
    running = a_run("r_1", "running", a_step("load", "pending"))
    api.answer("GET", "/runs/r_1", running)
    api.events["r_1"] = [
        ("snapshot", running),
        ("step", a_step("load", "running", attempts=1, started_at=at(1))),
        ("news", {"of": "a later version"}),
        ("step", a_step("load", "succeeded", attempts=1, started_at=at(1), ended_at=at(3))),
        ("run", summary(OK) | {"id": "r_1", "result": [1, 2], "input": {}}),
    ]
    done = cli("runs", "watch", "r_1")
    assert (done.code, done.out) == (0, "[\n  1,\n  2\n]\n")
    assert done.err.splitlines() == [
        "2026-11-20T02:00:00.000Z  r_1  daily_etl  begins",
        "2026-11-20T02:00:01.000Z  load  running",
        "2026-11-20T02:00:03.000Z  load  succeeded  2.0 s",
        "2026-11-20T02:00:04.400Z  r_1  daily_etl  succeeded  4.4 s",
    ]


def test_line_ends_of_other_alphabets_do_not_end_an_event(api: FakeApi, cli: Cli) -> None:
    run = a_run("r_1", "succeeded", result="one\u2028two\x85three\x1cfour")
    api.answer("GET", "/runs/r_1", run)
    api.events["r_1"] = [("snapshot", run)]
    assert json.loads(cli("runs", "watch", "r_1").out) == run["result"]


def test_watch_as_json_prints_the_whole_run(api: FakeApi, cli: Cli) -> None:
    api.answer("GET", "/runs/@last", OK)
    api.events[OK["id"]] = [("snapshot", OK)]
    assert json.loads(cli("runs", "watch", "@last", "--json").out) == {k: v for k, v in OK.items() if k != "steps"}


def test_failed_run_shows_log_traceback_error_and_what_to_do(api: FakeApi, cli: Cli) -> None:
    error = {"step": "totals[3]", "type": "ValueError", "message": "bad", "traceback": "File wf.py\nValueError: bad"}
    run = a_run("r_1", "failed", a_step("totals", "failed"), error=error)
    api.answer("GET", "/runs/r_1", run)
    long = ATTEMPTS[0] | {"logs": "".join(f"line {n}\n" for n in range(50))}
    api.answer("GET", "/runs/r_1/logs", {"attempts": [long, long | {"item": 4, "logs": "of another item"}]})
    api.events["r_1"] = [("snapshot", run)]
    done = cli("runs", "watch", "r_1")
    assert (done.code, done.out) == (ExitCode.RUN_FAILED, "")
    assert api.asked_for("GET", "/runs/r_1/logs") == [{"step": "totals"}]
    said = done.err.splitlines()
    assert "── log of totals[3], attempt 1, last 20 lines ──" in said
    assert "line 49" in said and "line 29" not in said and "of another item" not in said
    assert said[said.index("── traceback of totals[3] ──") + 1 :] == [
        "File wf.py",
        "ValueError: bad",
        "error[run-failed]: step totals[3] failed: ValueError: bad",
        "hint: each attempt and what it printed: hopline runs logs r_1 --step totals",
        "hint: when the cause is gone, run what is left: hopline runs retry r_1",
    ]


def test_failure_of_a_run_that_a_step_started_leads_there(api: FakeApi, cli: Cli) -> None:
    message = "step per_shop of run r_2: step price[1] of run r_3: division by zero"
    error = {"step": "regions[0]", "type": "ZeroDivisionError", "message": message, "traceback": None}
    run = a_run("r_1", "failed", a_step("regions", "failed", kind="workflow"), error=error)
    api.answer("GET", "/runs/r_1", run)
    attempt = ATTEMPTS[0] | {"step": "price", "item": 1, "logs": "of the inner run"}
    api.answer("GET", "/runs/r_3/logs", {"attempts": [attempt]})
    api.events["r_1"] = [("snapshot", run)]
    said = cli("runs", "watch", "r_1").err.splitlines()
    assert "of the inner run" in said
    assert "hint: each attempt and what it printed: hopline runs logs r_3 --step price" in said


def test_cancelled_run_exits_like_a_failed_one(api: FakeApi, cli: Cli) -> None:
    run = a_run("r_1", "cancelled", a_step("x", "cancelled"))
    api.answer("GET", "/runs/r_1", run)
    api.events["r_1"] = [("snapshot", run)]
    done = cli("runs", "watch", "r_1")
    assert done.code == ExitCode.RUN_FAILED
    assert "error[run-cancelled]: r_1 was cancelled" in done.err

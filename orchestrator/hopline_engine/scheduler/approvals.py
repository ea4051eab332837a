"""Decisions of people: who may decide, what they are asked, and what becomes of the answer.

A link to a page is made from the key of the installation and says until when it is good. Nothing is stored of it. It is
of use once, since a step that has been decided waits no more.
"""

from collections.abc import Awaitable, Callable, Mapping
from datetime import UTC, datetime
from typing import Any, Final, NamedTuple
from urllib.parse import quote

import msgspec

from hopline_engine.clock import Clock
from hopline_engine.core.live import LiveRun, LiveTask
from hopline_engine.core.model import ApprovalDecided, RunId, TaskState
from hopline_engine.core.names import parse_step_name, run_id
from hopline_engine.core.plan import Node
from hopline_engine.core.waits import Question, question_of
from hopline_engine.errors import ApprovalNotOpenError, InvalidApprovalError
from hopline_engine.queue.results import InvalidResultError, ResultType
from hopline_engine.queue.signing import Signer
from hopline_engine.scheduler.coordinator import Coordinator

LONGEST_NAME: Final = 200
_DOMAIN: Final = "approval "
"""Before the name of a step in what is signed: no token of an attempt is the signature of a link."""


class Asked(NamedTuple):
    """What a person is asked now."""

    task: LiveTask
    question: Question
    form: Mapping[str, Any] | None
    """JSON schema of what is to be filled in, if anything."""


class Approvals:
    """Asks people, and takes their answers."""

    def __init__(
        self,
        *,
        coordinator: Coordinator,
        alive: Callable[[RunId], Awaitable[LiveRun | None]],
        signer: Signer,
        clock: Clock,
        base_url: Callable[[], str],
        link_seconds: float,
        result_max_bytes: int,
    ) -> None:
        """Make the approvals of an engine.

        Args:
            coordinator: of the runs.
            alive: returns a run that has not ended, also one that is being read again; see ``Orders``.
            signer: makes and checks links.
            clock: of the engine.
            base_url: returns the URL of the API under which people reach it.
            link_seconds: how long a link is good.
            result_max_bytes: the largest form.
        """
        self._coordinator = coordinator
        self._alive = alive
        self._signer = signer
        self._clock = clock
        self._base_url = base_url
        self._link_seconds = link_seconds
        self._max_bytes = result_max_bytes

    def link(self, task: LiveTask) -> str:
        """Return a link to the page on which the step is decided."""
        return self.link_until(task)[0]

    def link_until(self, task: LiveTask) -> tuple[str, int]:
        """Return a link to the page on which the step is decided, and until when it is good, in Unix seconds."""
        expires = int(min(self._clock.now() + self._link_seconds, task.schedule_time))
        run, step = task.run.public_id, task.name
        signature = self._signer.sign(run, _DOMAIN + step, expires)
        path = f"approvals/{run}/{quote(step, safe='')}/page"
        return f"{self._base_url()}/{path}?expires={expires}&signature={signature}", expires

    def is_good(self, run: str, step: str, expires: int, signature: str) -> bool:
        """Return whether a link was made here; it may have expired."""
        return self._signer.is_signed(signature, run, _DOMAIN + step, expires)

    def is_over(self, expires: int) -> bool:
        """Return whether a link that is good until a time is so no longer."""
        return self._clock.now() >= expires

    def asked(self, run: str, step: str) -> Asked:
        """Return what a step that waits for a person asks.

        Raises:
            ApprovalNotOpenError: it does not wait: it was decided, its time is over, or there is no such step.
        """
        number = run_id(run)
        task = self._coordinator.find(number, *parse_step_name(step)) if number is not None else None
        if task is None or task.state is not TaskState.PARKED or task.node.kind != "approval":
            raise ApprovalNotOpenError(run=run, step=step)
        return Asked(task, question_of(task.run, task.node), form_of(task.node))

    async def decide(self, run: str, step: str, *, approved: bool, form: Any, by: str) -> None:
        """Take the answer of a person; when this returns, it is durable.

        Raises:
            ApprovalNotOpenError: the step does not wait for one.
            InvalidApprovalError: the form is not filled in as it must be, or nobody says who decided.
            RunMovingError: its run is on its way from one node to another.
        """
        number = run_id(run)
        if number is not None:
            await self._alive(number)
        asked = self.asked(run, step)
        who = by.strip()
        if not 0 < len(who) <= LONGEST_NAME:
            raise InvalidApprovalError(problems=[f"say who decides, in 1 to {LONGEST_NAME} characters"])
        if asked.form is None and form is not None:
            raise InvalidApprovalError(problems=["there is nothing to be filled in"])
        if asked.form is not None and form is None and approved:
            raise InvalidApprovalError(problems=["the form is to be filled in"])
        now = self._clock.now()
        at = datetime.fromtimestamp(now, UTC).isoformat()
        result = msgspec.json.encode({"approved": approved, "form": form, "by": who, "at": at})
        try:
            checked = ResultType(asked.task.node.result, self._max_bytes).read(result)
        except InvalidResultError as error:
            raise InvalidApprovalError(problems=[str(error)]) from None
        answer = ApprovalDecided(approved, who, msgspec.json.encode(form), now, asked.task.id)
        await self._coordinator.decide(asked.task, answer, checked)


def form_of(node: Node) -> Mapping[str, Any] | None:
    """Return the JSON schema of what is to be filled in for an approval; ``None`` if nothing is."""
    form = node.result.get("properties", {}).get("form", {})
    options = [option for option in form.get("anyOf", [form]) if option != {"type": "null"}]
    if not options or options[0].get("type") == "null":
        return None
    return {**options[0], "$defs": node.result.get("$defs", {})}

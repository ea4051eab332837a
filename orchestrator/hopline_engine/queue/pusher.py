"""Sends the tasks of push queues: what is due goes through the same admission as steps, and over the same targets.

An attempt is durable before its request is sent, and its end before the task is seen again. Between the two the
database says that it is out; a process that dies leaves it so, and the next one lets it be sent again.
"""

import asyncio
import heapq
import itertools
import logging
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Final

from hopline_engine.clock import Clock
from hopline_engine.core.cloud.attempts import Settled, Verdict
from hopline_engine.core.cloud.model import CloudTaskId
from hopline_engine.core.cloud.names import TaskName
from hopline_engine.errors import UnavailableError
from hopline_engine.queue.admission import Admission, Queued
from hopline_engine.queue.delivering import Courier
from hopline_engine.queue.gathering import Gathering
from hopline_engine.queue.throttle import Throttle
from hopline_engine.queue.windows import WINDOW, PushTask, Window
from hopline_engine.store import cloud_endings, cloud_pushes, cloud_queues, cloud_tasks
from hopline_engine.store.cloud_endings import Ending
from hopline_engine.store.cloud_pushes import Sending
from hopline_engine.store.errors import StoreError
from hopline_engine.store.interface import Store

log = logging.getLogger(__name__)

SWEEP_SECONDS: Final = 30.0
LEAST_SWEPT: Final = 1000
"""Entries of timers below which it is not worth looking for those that are of no use any more."""
MOST_TOGETHER: Final = 200
"""Attempts that are begun, or whose ends are noted, in one transaction."""
RETRY_SECONDS: Final = 1.0
"""After trouble with the store."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Keeping:
    """How long things are kept."""

    attempt_seconds: float
    """Attempts, after they ended; 0 keeps none."""


class Pusher:
    """Sends tasks. Everything happens on the loop it was opened on."""

    def __init__(
        self,
        *,
        store: Store,
        admission: Admission,
        courier: Courier,
        clock: Clock,
        keeping: Keeping,
        look_again: Callable[[], None],
    ) -> None:
        """Make a pusher.

        Args:
            store: where tasks are.
            admission: says which due tasks may be sent, of steps and of the service alike.
            courier: sends one attempt.
            clock: the time in which tasks are due.
            keeping: how long attempts are kept.
            look_again: has the admission asked again, after something was offered or given back.
        """
        self._store = store
        self._admission = admission
        self._courier = courier
        self._clock = clock
        self._keeping = keeping
        self._look_again = look_again
        self._windows: dict[str, Window] = {}
        self._heap: list[tuple[float, int, PushTask]] = []
        self._order = itertools.count()
        self._sweep_at = LEAST_SWEPT
        self._timer: asyncio.TimerHandle | None = None
        self._running: set[asyncio.Task[None]] = set()
        self._sweeping: asyncio.Task[None] | None = None
        self._throttle = Throttle(admission)
        self._admitted: list[PushTask] = []
        self._is_beginning = False
        self._endings = Gathering(self._record, lambda ending: ending.task, MOST_TOGETHER)
        self._is_open = False

    # --- life -------------------------------------------------------------------------------------------------------

    async def open(self) -> None:
        """Take up what is stored: attempts of dead processes, and what is due first of every queue."""
        self._is_open = True
        await self.take_back()
        for key in await self._store.read(cloud_queues.editions):
            self.add_queue(key)
        self._sweeping = asyncio.create_task(self._sweep())

    async def close(self, grace_seconds: float) -> None:
        """Send nothing more, wait a while for answers, and leave the rest to be sent again."""
        self._is_open = False
        if self._timer is not None:
            self._timer.cancel()
        if self._sweeping is not None:
            self._sweeping.cancel()
            await asyncio.wait({self._sweeping})
        if self._running:
            await asyncio.wait(list(self._running), timeout=grace_seconds)
        cut_off = list(self._running)
        for running in cut_off:
            running.cancel()
        await asyncio.gather(*cut_off, return_exceptions=True)
        await self._endings.settled()
        while await self._store.execute(
            partial(cloud_pushes.take_back, node_id=self._store.owner.node, now=self._clock.now())
        ):
            pass

    # --- what waits -------------------------------------------------------------------------------------------------

    def add_queue(self, key: str) -> None:
        """Send the tasks of a queue from now on."""
        if key not in self._windows:
            self._load(self._windows.setdefault(key, Window(key)))

    @property
    def queues(self) -> set[str]:
        """The queues whose tasks are sent."""
        return set(self._windows)

    def queues_with_much_due(self, now: float) -> list[str]:
        """Return the queues of which enough is known that is due."""
        return [key for key, window in self._windows.items() if window.has_much_due(now)]

    def lacks(self, key: str, number: CloudTaskId) -> bool:
        """Return whether a task of a queue that is sent is neither known nor being sent."""
        window = self._windows.get(key)
        return window is not None and window.lacks(number)

    def drop_queue(self, key: str) -> None:
        """Forget a queue that was deleted; what was sent is answered in vain."""
        window = self._windows.pop(key, None)
        for task in window.held.values() if window else ():
            self._admission.withdraw(task)

    def read_again(self, key: str) -> None:
        """Forget what is known of a queue, most of whose tasks are gone, and read what is left."""
        self.drop_queue(key)
        self.add_queue(key)

    def read_all_again(self) -> None:
        """Read of every queue what is due first; what is known stays."""
        for window in self._windows.values():
            if not window.is_loading:
                self._load(window)

    def note(self, key: str, number: CloudTaskId, schedule_time: float) -> None:
        """Send a task, which is durable, when it is due."""
        window = self._windows.get(key)
        if window is None:
            return
        self._forget(window, number)
        for later in window.make_room(schedule_time):
            self._admission.withdraw(later)
        task = window.take_in(number, schedule_time)
        if task is not None:
            self._wait_for(task)

    def _wait_for(self, task: PushTask) -> None:
        if task.schedule_time <= self._clock.now():
            self._admission.offer(task)
            asyncio.get_running_loop().call_soon(self._look_again)
            return
        if len(self._heap) >= self._sweep_at:
            self._sweep_heap()
        heapq.heappush(self._heap, (task.schedule_time, next(self._order), task))
        if self._heap[0][2] is task:
            self._arm()

    def _forget(self, window: Window, number: CloudTaskId) -> None:
        task = window.held.pop(number, None)
        if task is not None:
            self._admission.withdraw(task)

    def _arm(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        if self._heap and self._is_open:
            # At most a minute at a time: the wall clock may be set while the loop's clock runs on.
            delay = min(max(0.0, self._heap[0][0] - self._clock.now()), 60.0)
            self._timer = asyncio.get_running_loop().call_later(delay, self._wake)

    def _wake(self) -> None:
        now = self._clock.now()
        is_any = False
        while self._heap and self._heap[0][0] <= now:
            task = heapq.heappop(self._heap)[2]
            if self._is_held(task):
                self._admission.offer(task)
                is_any = True
        self._arm()
        if is_any:
            self._look_again()

    def _sweep_heap(self) -> None:
        """Drop what is not held any more: its time may be a month ahead."""
        self._heap = [entry for entry in self._heap if self._is_held(entry[2])]
        heapq.heapify(self._heap)
        self._sweep_at = max(LEAST_SWEPT, 2 * len(self._heap))

    def _is_held(self, task: PushTask) -> bool:
        window = self._windows.get(task.node.queue)
        return window is not None and window.held.get(task.number) is task

    def _load(self, window: Window) -> None:
        window.is_loading = True
        self._run(self._loading(window))

    async def _loading(self, window: Window) -> None:
        while self._is_open:
            try:
                rows = await self._store.read(partial(cloud_pushes.due, key=window.key, limit=WINDOW))
            except (StoreError, UnavailableError):
                log.exception("the due tasks of queue %s could not be read", window.key)
                await asyncio.sleep(RETRY_SECONDS)
                continue
            if self._windows.get(window.key) is not window:  # its queue was deleted, or is read again, meanwhile
                return
            for task in window.load(rows, WINDOW):
                self._wait_for(task)
            for later in window.trim():
                self._admission.withdraw(later)
            # What was read may be nothing but tasks whose attempts ended meanwhile; those that are out ask again.
            if window.out or not window.must_load():
                return
            window.is_loading = True

    # --- sending ----------------------------------------------------------------------------------------------------

    def send(self, admitted: Sequence[Queued]) -> None:
        """Send tasks that the admission let go; all of them must be of ours."""
        tasks = [task for task in admitted if isinstance(task, PushTask)]
        for task in tasks:
            window = self._windows.get(task.node.queue)
            if window is not None:
                window.let_go(task)
        self._admitted += tasks
        if not self._is_beginning:
            self._is_beginning = True
            self._run(self._send_admitted())

    async def _send_admitted(self) -> None:
        """Begin attempts, together those that were admitted while others were begun."""
        try:
            while self._admitted:
                tasks, self._admitted = self._admitted[:MOST_TOGETHER], self._admitted[MOST_TOGETHER:]
                await self._send(tasks)
        finally:
            self._is_beginning = False

    async def run_now(self, name: TaskName) -> Sending:
        """Send a task now, whatever its time and its queue's limits; return it as it is while the attempt is out.

        Raises:
            CloudTasksError: it is over, or never was.
        """
        begin = partial(cloud_pushes.force, name=name, node_id=self._store.owner.node, now=self._clock.now())
        sending = await self._store.execute(begin)
        self._run(self._attempt(sending, None))
        return sending

    async def _send(self, tasks: Sequence[PushTask]) -> None:
        begun = {sending.stored.id: sending for sending in await self._begin(tasks)}
        free: defaultdict[str, list[PushTask]] = defaultdict(list)
        for task in tasks:
            sending = begun.pop(task.number, None)
            if sending is not None:
                self._run(self._attempt(sending, task))
            else:  # deleted, or sent by another node: its place is another's
                free[task.node.queue].append(task)
                self._doubt(task)
        for sending in begun.values():
            self._let_go(sending)
            self._run(self._attempt(sending, free[sending.stored.key].pop()))
        for task in itertools.chain(*free.values()):
            self._admission.take_back(task.id)
            asyncio.get_running_loop().call_soon(self._look_again)
        for key in {task.node.queue for task in tasks}:
            self._refill(key)

    async def _begin(self, tasks: Sequence[PushTask]) -> Sequence[Sending]:
        wanted: defaultdict[str, list[CloudTaskId]] = defaultdict(list)
        for task in tasks:
            wanted[task.node.queue].append(task.number)
        begin = partial(cloud_pushes.begin, wanted=wanted, node_id=self._store.owner.node, now=self._clock.now())
        try:
            return await self._store.execute(begin) if self._is_open else ()
        except (StoreError, UnavailableError):
            log.exception("%d tasks could not be sent", len(tasks))
            return ()

    def _let_go(self, sending: Sending) -> None:
        """Hold a task no more that is sent in place of another."""
        window = self._windows.get(sending.stored.key)
        if window is not None:
            self._forget(window, sending.stored.id)
            window.out.add(sending.stored.id)

    def _refill(self, key: str) -> None:
        """Read more of a queue if its window has half run empty.

        Also after each attempt: what was read last may have been nothing but tasks that were being sent, and then it is
        the ends of these that have to ask for the rest.
        """
        window = self._windows.get(key)
        if window is not None and window.must_load():
            self._load(window)

    def _doubt(self, task: PushTask) -> None:
        """Read a queue again as soon as there is room, if memory and rows disagree though no other node writes them."""
        window = self._windows.get(task.node.queue)
        if window is None:
            return
        window.out.discard(task.number)
        if window.is_whole and self._store.owner.alone:
            window.is_whole = False
            window.horizon = float("inf")

    async def _attempt(self, sending: Sending, task: PushTask | None) -> None:
        key = sending.stored.key
        try:
            ended = await self._courier.deliver(sending)
        finally:
            if task is not None:
                self._release(task)
        self._throttle.hear(key, ended, self._clock.now())
        settled = await self._endings.done(Ending(sending, ended))
        window = self._windows.get(key)
        if window is not None:
            window.out.discard(sending.stored.id)
        if settled is not None and settled.verdict is Verdict.AGAIN:
            self.note(key, sending.stored.id, settled.schedule_time)
        elif settled is not None and settled.verdict is Verdict.DEAD:
            log.warning("task %s has used up its attempts: %s", sending.stored.task.name, ended.attempt_status.message)
        self._refill(key)

    async def _record(self, endings: Sequence[Ending]) -> Sequence[Settled | None]:
        end = partial(cloud_endings.end, endings=endings, keeps_attempts=self._keeping.attempt_seconds > 0.0)
        return await self._store.execute(end)

    def _release(self, task: PushTask) -> None:
        """Give its place back; nothing else may come that lets the next one go."""
        self._admission.release(task.id)
        asyncio.get_running_loop().call_soon(self._look_again)

    # --- housekeeping -----------------------------------------------------------------------------------------------

    async def take_back(self) -> None:
        """Let be sent again what processes had sent that are gone."""
        while await self._store.execute(partial(cloud_pushes.take_back, node_id=None, now=self._clock.now())):
            pass

    async def _sweep(self) -> None:
        """Delete from time to time what is kept no longer."""
        while True:
            await asyncio.sleep(SWEEP_SECONDS)
            try:
                await self.take_back()
                since = self._clock.now() - self._keeping.attempt_seconds
                sweep = partial(cloud_tasks.sweep_some, now=self._clock.now(), attempts_since=since)
                while await self._store.execute(sweep):
                    pass
            except (StoreError, UnavailableError):
                log.exception("the queue service could not tidy up")

    def _run(self, coroutine: "asyncio._CoroutineLike[None]") -> None:
        running = asyncio.get_running_loop().create_task(coroutine)
        self._running.add(running)
        running.add_done_callback(self._finished)

    def _finished(self, running: asyncio.Task[None]) -> None:
        self._running.discard(running)
        if not running.cancelled() and running.exception() is not None:
            log.error("sending a task failed", exc_info=running.exception())

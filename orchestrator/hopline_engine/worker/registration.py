"""Keeps a worker known to every node of the engine, over restarts of nodes, new ones, and the death of some.

One address is enough to begin with: every answer names all nodes. The worker's slots are divided among the nodes that
know it, so that together they send it no more than it runs at a time.
"""

import asyncio
import contextlib
from collections.abc import Callable

from hopline_engine.clock import Clock
from hopline_engine.worker.client import Announcement, EngineClient, RegistrationRefusedError, Terms
from hopline_engine.worker.exchange import NoAnswerError
from hopline_engine.worker.parent import say

HEARTBEAT_SECONDS = 2.0
FIRST_WAIT_SECONDS = 0.1
LONGEST_WAIT_SECONDS = 2.0
"""Short, since steps may be waiting for this worker after the engine was started again."""
OTHERS_SECONDS = 2.0
"""How long the nodes that the first one names are waited for before the worker counts as registered."""


class Registration:
    """The ties of one worker to the nodes: to the server it was given for ever, to others while they are listed."""

    def __init__(
        self,
        server: str,
        api_token: str | None,
        announcement: Announcement,
        clock: Clock,
        on_registered: Callable[[Terms], None],
    ) -> None:
        """Make a registration that begins at *server*; *on_registered* is told each time a node knows the worker."""
        self._api_token = api_token
        self._announcement = announcement
        self._clock = clock
        self._on_registered = on_registered
        self._ties: dict[str, _Tie] = {}
        self._first = self._tie(server.rstrip("/"), node=None, as_newest=True)
        self._is_known = False

    async def keep(self) -> None:
        """Stay registered with every node until cancelled.

        Raises:
            RegistrationRefusedError: the server refused this worker before it had ever accepted it.
        """
        self._first.begin()
        assert self._first.task is not None
        try:
            await self._first.task
        finally:
            for tie in list(self._ties.values()):
                await tie.end()

    async def unregister(self) -> None:
        """Ask all nodes for no more work. Those that do not answer will notice by themselves."""
        await asyncio.gather(*(_left(tie.client) for tie in self._ties.values()))

    @property
    def addresses(self) -> list[str]:
        """Where it is registered, or tries to be."""
        return list(self._ties)

    @property
    def share(self) -> int:
        """How many steps each node may send at a time."""
        known = {tie.node or tie.url for tie in self._ties.values() if tie.is_known}
        return -(-self._announcement.slots // max(1, len(known)))

    def is_wanted(self, tie: "_Tie") -> bool:
        """Return whether there is a reason to ask again where nobody answers."""
        lists = [other.terms.nodes for other in self._ties.values() if other is not tie and other.is_known]
        return tie is self._first or not lists or any(tie.url == each.url for nodes in lists for each in nodes)

    async def learn(self, terms: Terms) -> None:
        """Take up ties to the nodes that one of them names."""
        known = {other.url for other in self._ties.values()} | {other.node for other in self._ties.values()}
        added = [
            # Versions that other workers have registered since then are newer than this worker's.
            self._tie(address.url, address.id, as_newest=not self._is_known)
            for address in terms.nodes
            if not known & {address.url, address.id}
        ]
        for other in added:
            other.begin()
        if added and not self._is_known:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(OTHERS_SECONDS):
                    await asyncio.gather(*(other.tried.wait() for other in added))

    def registered(self, terms: Terms) -> None:
        """Note that a node knows the worker."""
        self._is_known = True
        self._on_registered(terms)

    def forget(self, tie: "_Tie") -> None:
        """Drop the tie to a node that is gone."""
        del self._ties[tie.url]

    def _tie(self, url: str, node: str | None, *, as_newest: bool) -> "_Tie":
        client = EngineClient(url, self._api_token, self._announcement)
        tie = self._ties[url] = _Tie(self, client, self._clock, url, node, as_newest=as_newest)
        return tie


class _Tie:
    """The registration with one node."""

    def __init__(
        self, whole: Registration, client: EngineClient, clock: Clock, url: str, node: str | None, *, as_newest: bool
    ) -> None:
        self.client = client
        self.url = url
        self.node = node
        """Id of the node, as far as it is known."""
        self.terms = Terms()
        """Its last answer."""
        self.is_known = False
        """Whether the node knows the worker now."""
        self.tried = asyncio.Event()
        """The node was asked once."""
        self.task: asyncio.Task[None] | None = None
        self._whole = whole
        self._clock = clock
        self._listed_as = node
        self._as_newest = as_newest
        self._was_known = False
        self._share = 0
        self._is_defined = False

    def begin(self) -> None:
        """Keep registered from now on."""
        self.task = asyncio.create_task(self._keep())

    async def end(self) -> None:
        """Do nothing more."""
        if self.task is not None:
            self.task.cancel()
            await asyncio.wait({self.task})

    async def _keep(self) -> None:
        while await self._register():
            await self._whole.learn(self.terms)
            self._whole.registered(self.terms)
            await self._heartbeats()
            self.is_known = False
        self._whole.forget(self)

    async def _register(self) -> bool:
        """Register, however long it takes; return whether the node is still of interest."""
        wait = FIRST_WAIT_SECONDS
        self._is_defined = False
        while (reason := await self._what_prevents()) is not None:
            if not self._whole.is_wanted(self):
                return False
            if wait == FIRST_WAIT_SECONDS:
                say(f"waiting for the server at {self.url}: {reason}")
            await asyncio.sleep(wait * (0.5 + self._clock.random() / 2))
            wait = min(wait * 2, LONGEST_WAIT_SECONDS)
        if wait != FIRST_WAIT_SECONDS:
            say("registered")
        return True

    async def _what_prevents(self) -> Exception | None:
        try:
            if (reason := await self._not_the_one_listed()) is not None:
                return reason
            if not self._is_defined:
                for note in await self.client.define(as_newest=self._as_newest):
                    say(note)
                self._is_defined = True
            await self._announce()
        except NoAnswerError as error:
            return error
        except RegistrationRefusedError as error:
            if self._listed_as is None and not self._was_known:
                raise
            return error
        finally:
            self.tried.set()
        return None

    async def _not_the_one_listed(self) -> Exception | None:
        """Return what is wrong when something else answers at an address that another node named."""
        if self._listed_as is None or self._was_known:
            return None
        found = await self.client.node()
        if found == self._listed_as:
            return None
        return RegistrationRefusedError("other-node", f"node {self._listed_as} should be there, not {found}", None)

    async def _announce(self) -> None:
        self.is_known = True  # counted among those that share the slots
        try:
            share = self._whole.share
            self._heard(await self.client.register(share))
        except BaseException:
            self.is_known = False
            raise
        self._share = share
        self._was_known = True

    def _heard(self, terms: Terms) -> None:
        self.terms = terms
        self.node = terms.node or self.node

    async def _heartbeats(self) -> None:
        """Return when the node does not answer, or does not know the worker."""
        while True:
            await asyncio.sleep(HEARTBEAT_SECONDS)
            if not await self._is_still_known():
                return
            await self._whole.learn(self.terms)

    async def _is_still_known(self) -> bool:
        try:
            terms = await self.client.heartbeat()
            if terms is None:
                return False
            self._heard(terms)
            if self._share != self._whole.share:
                await self._announce()
        except (NoAnswerError, RegistrationRefusedError):
            return False
        return True


async def _left(client: EngineClient) -> None:
    with contextlib.suppress(NoAnswerError, RegistrationRefusedError):
        await client.unregister()

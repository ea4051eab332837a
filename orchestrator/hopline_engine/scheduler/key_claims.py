"""This node's wishes for keys of which few tasks are worked on at a time, where several nodes send tasks.

Admission lines up only tasks whose keys the store has granted. Here the store is asked, for all keys at once, when a
task begins to wait for its key, when an attempt is over that held one, and from time to time, since another node may
have let go of a key.
"""

import asyncio
import contextlib
import logging
from collections.abc import Callable
from functools import partial
from typing import Final

from hopline_engine.queue.admission import Admission
from hopline_engine.store import key_claims
from hopline_engine.store.errors import OwnershipLostError, StoreClosedError
from hopline_engine.store.interface import Store

log = logging.getLogger(__name__)

ROUND_SECONDS: Final = 0.25
"""How long after another node has let go of a key it is noticed here, at most."""

WISHES_AT_A_TIME: Final = 500


class KeyClaims:
    """Asks the store for keys."""

    def __init__(self, *, store: Store, admission: Admission, look_again: Callable[[], None]) -> None:
        """Make claims that ask nothing before ``open``; *look_again* sends what a grant lets through."""
        self._store = store
        self._keys = admission.keys
        self._admission = admission
        self._look_again = look_again
        self._wake = asyncio.Event()
        self._asking: asyncio.Task[None] | None = None
        self._keys.is_shared = True

    def open(self) -> None:
        """Begin to ask."""
        self._asking = asyncio.get_running_loop().create_task(self._ask_for_ever())

    async def close(self) -> None:
        """Ask no more; what this node holds goes as its tasks are taken up by others."""
        if self._asking is not None:
            self._asking.cancel()
            await asyncio.gather(self._asking, return_exceptions=True)

    def look(self, _: float) -> None:
        """Note that tasks may wait for keys, or need them no longer; called after each admission."""
        if self._keys.has_news:
            self._wake.set()

    async def ask(self) -> None:
        """Ask the store for the keys that tasks wait for, and line up those that have them."""
        self._keys.has_news = False
        given_up, self._keys.given_up = self._keys.given_up, set()
        wishes = self._keys.wishes()
        try:
            for begin in range(0, max(1, len(wishes)), WISHES_AT_A_TIME):
                some = wishes[begin : begin + WISHES_AT_A_TIME]
                settle = partial(key_claims.settle, owner=self._store.owner, wishes=some, given_up=given_up)
                settled = await self._store.execute(settle)
                given_up = set()
                self._keys.elsewhere.update((place, list(words)) for place, words in settled.held.items())
                self._admission.grant_keys(settled.granted)
        except BaseException:
            self._keys.has_news = True
            self._keys.give_up(given_up)
            raise
        self._look_again()

    async def _ask_for_ever(self) -> None:
        while True:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(ROUND_SECONDS if self._keys.are_wanted else None):
                    await self._wake.wait()
            self._wake.clear()
            try:
                await self.ask()
            except (OwnershipLostError, StoreClosedError):
                return  # whoever beats tells of it
            except Exception:
                log.exception("keys could not be asked for; it is tried again")
                await asyncio.sleep(ROUND_SECONDS)

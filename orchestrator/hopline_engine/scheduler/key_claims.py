"""This node's wishes for keys of which few tasks are worked on at a time, where several nodes send tasks.

Admission lines up only tasks whose keys the store has granted. Here the store is asked, for all keys at once, when a
task begins to wait for its key, when an attempt is over that held one, and from time to time, since another node may
have let go of a key.
"""

import asyncio
from collections.abc import Callable
from functools import partial
from typing import Final

from hopline_engine.queue.admission import Admission
from hopline_engine.scheduler.rounds import go_round
from hopline_engine.store import key_claims
from hopline_engine.store.interface import Store

ROUND_SECONDS: Final = 0.25
"""How long after another node has let go of a key it is noticed here, at most."""

WISHES_AT_A_TIME: Final = 500


class KeyClaims:
    """Asks the store for keys."""

    def __init__(self, *, store: Store, admission: Admission, look_again: Callable[[], None]) -> None:
        """Make claims that ask nothing before ``run``; *look_again* sends what a grant lets through."""
        self._store = store
        self._keys = admission.keys
        self._admission = admission
        self._look_again = look_again
        self._wake = asyncio.Event()
        self._keys.is_shared = True

    async def run(self) -> None:
        """Ask again and again, until cancelled; what is held then goes as others take up the tasks of this node."""
        await go_round(
            self.ask,
            wake=self._wake,
            rest_seconds=lambda: ROUND_SECONDS if self._keys.are_wanted else None,
            again_seconds=ROUND_SECONDS,
            trouble="keys could not be asked for",
        )

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

"""Does together what is asked for while something is being done: a transaction for many costs as much as for one."""

import asyncio
from collections.abc import Awaitable, Callable, Hashable, Sequence
from typing import Generic, TypeVar

_T = TypeVar("_T")
_R = TypeVar("_R")


class Gathering(Generic[_T, _R]):
    """Hands over what is given one by one, as it has gathered; of several with the same key one at a time."""

    def __init__(
        self, do: Callable[[Sequence[_T]], Awaitable[Sequence[_R]]], key: Callable[[_T], Hashable], most: int
    ) -> None:
        """Make it.

        Args:
            do: returns the results of up to *most* things, in their order.
            key: of a thing.
            most: how many are done together.
        """
        self._do = do
        self._key = key
        self._most = most
        self._waiting: list[tuple[_T, asyncio.Future[_R]]] = []
        self._working: asyncio.Task[None] | None = None

    async def done(self, thing: _T) -> _R:
        """Return the result for *thing*; it is done, also when this is cancelled."""
        future: asyncio.Future[_R] = asyncio.get_running_loop().create_future()
        self._waiting.append((thing, future))
        if self._working is None:
            self._working = asyncio.get_running_loop().create_task(self._work())
        return await future

    async def settled(self) -> None:
        """Return when everything that was given is done."""
        while self._working is not None:
            await asyncio.wait({self._working})

    async def _work(self) -> None:
        try:
            while self._waiting:
                await asyncio.sleep(0)  # for what else this turn of the loop brings, and for what it sets off first
                await self._do_some(self._take())
        finally:
            self._working = None

    def _take(self) -> list[tuple[_T, "asyncio.Future[_R]"]]:
        taken: dict[Hashable, tuple[_T, asyncio.Future[_R]]] = {}
        left: list[tuple[_T, asyncio.Future[_R]]] = []
        for waiting in self._waiting:
            key = self._key(waiting[0])
            if key in taken or len(taken) == self._most:
                left.append(waiting)
            else:
                taken[key] = waiting
        self._waiting = left
        return list(taken.values())

    async def _do_some(self, taken: Sequence[tuple[_T, "asyncio.Future[_R]"]]) -> None:
        try:
            results = await self._do([thing for thing, _ in taken])
        except Exception as error:  # noqa: BLE001 - whoever waits is told
            for _, future in taken:
                if not future.done():
                    future.set_exception(error)
            return
        for (_, future), result in zip(taken, results, strict=True):
            if not future.done():
                future.set_result(result)

"""``Event``: something that happens outside, which runs wait for and by which runs are started."""

import re
from typing import Any, Generic, Self, TypeVar, cast

from hopline import plain, trace
from hopline.errors import definition_error
from hopline.policy import Policy
from hopline.waiting import Wait, returning, schemas_of

T = TypeVar("T")

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,199}", re.ASCII)


class Event(Generic[T]):
    """An event by its name, with the type of what it says: ``Event("parcel.scanned", Scan)``.

    Each time it happens has a key, such as the number of the parcel. Of each key the first time is kept, for as long as
    the server keeps events, so that it does not matter whether it happens before or after it is waited for.
    """

    def __init__(self, name: str, kind: type[T], *, upstream: tuple[object, ...] = ()) -> None:
        if type(name) is not str or not _NAME.fullmatch(name):
            raise definition_error(
                f"{name!r} is not a name of an event",
                "use 1 to 200 letters, digits, '.', '-' and '_', the first a letter or digit",
            )
        self.name = name
        self.kind = kind
        self._upstream = upstream
        self._payload = returning(name, kind)

    def after(self, *results: object) -> Self:
        """Return the event, to be waited for only when the steps that gave *results* have ended well.

        That is when its timeout begins; an event that happened before is found all the same.
        """
        return type(self)(self.name, self.kind, upstream=(*self._upstream, *results))

    def wait(self, *, key: str, timeout: str | None = None) -> T:
        """Return what the event with this key says, once it has happened; in a workflow body only.

        The step fails with ``TimeoutError`` when it does not happen within *timeout*; without one it waits for ever.
        """
        wiring = trace.current.get()
        if wiring is None:
            return cast("T", plain.delivered(self.name, key))
        schema, shape = self.schemas()
        policy = Policy(deadline=timeout)
        wait = Wait(
            kind="event",
            name=self.name,
            inputs={"key": key},
            upstream=self._upstream,
            result=schema,
            shape=shape,
            policy=policy,
        )
        return cast("T", wiring.wait(wait))

    def schemas(self) -> tuple[Any, Any]:
        """Return the JSON schema of what it says, and the same with the Python names of fields that have aliases.

        Raises DefinitionError for a type that has none.
        """
        return schemas_of(f"Event({self.name!r})", self._payload)

    def __repr__(self) -> str:
        return f"<event {self.name}>"

"""Results that come later: what a Python step returns that has given its work to somebody else."""

from typing import Any, Generic, TypeVar

R = TypeVar("R")


class Pending(Generic[R]):
    """What a step returns instead of an ``R`` that is reported to its callback URL; made by ``defer``."""

    __slots__ = ()

    def __repr__(self) -> str:
        return "defer()"


def defer() -> Pending[Any]:
    """End an attempt without a result: ``return defer()`` in a step that is annotated ``-> Pending[R]``.

    The result comes as a report to ``context().callback_url``, which needs ``context().callback_token``. Until then
    the step waits and nothing of it is held; its callers see an ``R``.
    """
    return _PENDING


_PENDING: Pending[Any] = Pending()

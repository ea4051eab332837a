"""IAM policies of queues: kept and answered, not enforced; who says what they replace replaces nothing else."""

import hashlib
from typing import Final

from hopline_engine.core.cloud.errors import CloudTasksError, Code

NO_POLICY: Final = b"\x00\x20\x01"
"""The mark of a policy that nobody has set; in base64 ``ACAB``, as at the original."""


def etag_of(policy: bytes | None) -> bytes:
    """Return the mark of a policy as it is kept, which changes whenever that does."""
    return NO_POLICY if policy is None else hashlib.blake2b(policy, digest_size=8).digest()


def policy_changed() -> CloudTasksError:
    """Return the error for a policy that somebody else replaced in the meantime."""
    return CloudTasksError(
        Code.ABORTED,
        "There were concurrent policy changes. Please retry the whole read-modify-write with exponential backoff.",
    )

"""What a process has used, as Linux counts it."""

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True, kw_only=True)
class Usage:
    """Of one process, so far."""

    cpu_seconds: float
    resident_bytes: int
    peak_bytes: int
    """Most that was resident since the start, or since ``forget_peak``."""

    @classmethod
    def of(cls, pid: int) -> "Usage":
        """Read what process *pid* has used."""
        process = Path(f"/proc/{pid}")
        # To the nanosecond, where /proc/PID/stat counts in hundredths of a second. Threads that ended are not in it;
        # engine and worker keep theirs.
        spent = sum(int(thread.read_text().split()[0]) for thread in process.glob("task/*/schedstat"))
        status = dict(line.split(":", 1) for line in (process / "status").read_text().splitlines())
        return cls(cpu_seconds=spent / 1e9, resident_bytes=_bytes(status["VmRSS"]), peak_bytes=_bytes(status["VmHWM"]))


def share_bytes(pid: int) -> int:
    """Return the part of process *pid* in what is resident: pages that several processes have are divided by them."""
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    return next(_bytes(line.partition(":")[2]) for line in lines if line.startswith("Pss:"))


def forget_peak(pid: int) -> None:
    """Count the peak of process *pid* from here on."""
    Path(f"/proc/{pid}/clear_refs").write_text("5")


def _bytes(text: str) -> int:
    return int(text.removesuffix("kB")) * 1024

"""Tests on the real engine without a server: virtual time, steps in the test's process, servers that are doubles."""

from hopline_engine.testing.crashes import CrashPoint
from hopline_engine.testing.doubles import NoDoubleError, Route, Sent, Server
from hopline_engine.testing.engine import CallbackRefusedError, Engine, Run, StepRun

__all__ = [
    "CallbackRefusedError",
    "CrashPoint",
    "Engine",
    "NoDoubleError",
    "Route",
    "Run",
    "Sent",
    "Server",
    "StepRun",
]

"""Hopline: durable workflows as Python DAGs of queued HTTP tasks. This package is what a workflow file imports."""

from hopline.approvals import ApprovalRequest, Decision, approval, approval_requested
from hopline.context import Context, context
from hopline.control import all_of, any_of, branch, first, not_, recover, switch
from hopline.decorators import http, sensor, step, workflow
from hopline.definition import Definition
from hopline.dynamic import Dynamic, dynamic
from hopline.errors import DefinitionError, Fail, Failure, HoplineError, RetryAfter
from hopline.events import Event
from hopline.looping import loop
from hopline.markers import secret
from hopline.outcomes import Err, Ok
from hopline.pending import Pending, defer
from hopline.policy import Queue, Retry
from hopline.request import Request
from hopline.schedules import At, Cron, Every, scheduled
from hopline.steps import Step, Workflow
from hopline.waiting import sleep

__all__ = [
    "ApprovalRequest",
    "At",
    "Context",
    "Cron",
    "Decision",
    "Definition",
    "DefinitionError",
    "Dynamic",
    "Err",
    "Event",
    "Every",
    "Fail",
    "Failure",
    "HoplineError",
    "Ok",
    "Pending",
    "Queue",
    "Request",
    "Retry",
    "RetryAfter",
    "Step",
    "Workflow",
    "all_of",
    "any_of",
    "approval",
    "approval_requested",
    "branch",
    "context",
    "defer",
    "dynamic",
    "first",
    "http",
    "loop",
    "not_",
    "recover",
    "scheduled",
    "secret",
    "sensor",
    "sleep",
    "step",
    "switch",
    "workflow",
]

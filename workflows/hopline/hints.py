"""What to write instead, for exceptions of Python that come from calling this package in a wrong way."""

from hopline.request import Verbs

_POLICY = 'retry=Retry(3), timeout="2m", deadline="1h", queue=erp and max_parallel=50'
_FORMS = {
    "workflow": "retry, timeout and queue belong to the steps of a workflow, not to itself; it may have a deadline",
    "step": f"write @step, or with any of {_POLICY}",
    "Http.__call__": f"write @http, or with any of {_POLICY}",
    "Step.using": f"using() takes {_POLICY}, batch=100 for a map, key=, key_limit= and priority=",
    "Step.map": "write step.map(items), and behind the items the arguments that are the same for all",
    "Step.map_settled": "write step.map_settled(items), and behind the items the arguments that are the same for all",
    "loop": "write loop(step, start, until=lambda result: result.done, limit=100, every='30s')",
    "Retry.__init__": 'write Retry(5, first="2s", factor=2, max="5m", jitter="full", on=(429, TimeoutError))',
    "Queue.__init__": 'write Queue("erp", rate="10/s", burst=20, max_concurrent=20)',
}
_REQUEST = "write http.post(url, params={...}, headers={...}, json=...)"


def misuse_hint(error: BaseException) -> str | None:
    """Return what to write instead, or None when *error* is not one of these.

    >>> misuse_hint(TypeError("workflow() got an unexpected keyword argument 'retries'"))
    'retry, timeout and queue belong to the steps of a workflow, not to itself; it may have a deadline'
    """
    if isinstance(error, NameError):
        return f"define {error.name!r}, or import it, at the top level of the file"
    if isinstance(error, AttributeError) and isinstance(error.obj, Verbs):
        return _REQUEST
    if isinstance(error, TypeError):
        called = str(error).partition("()")[0]
        return _REQUEST if called.startswith("Verbs.") else _FORMS.get(called)
    return None

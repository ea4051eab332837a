"""Batches as they travel: several elements of a map in one request of a worker."""

import json

from tests.simulation.network import Request


def is_batch(request: Request) -> bool:
    """Return whether a request is for several elements."""
    return b"hopline-batch" in request.headers


def elements_of(request: Request) -> list[Request]:
    """Return the requests that a batch stands for; any other one is alone."""
    if not is_batch(request):
        return [request]
    elements = json.loads(request.body)
    assert int(request.headers[b"hopline-batch"]) == len(elements)
    return [
        Request(
            request.method,
            request.path,
            {name.encode(): value.encode() for name, value in element["headers"].items()},
            json.dumps(element["arguments"]).encode(),
        )
        for element in elements
    ]

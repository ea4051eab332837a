"""A stand-in for a rendering farm, with the standard library only: takes orders, and calls back when they are done.

python examples/thumbnails/farm.py 8098
"""

import json
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.request import Request, urlopen


class Farm(BaseHTTPRequestHandler):
    """``POST /orders`` with ``film``, ``url`` and ``token``: reports the name of the first frame to the URL."""

    def do_POST(self) -> None:
        order = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        threading.Timer(0.2, render, (order,)).start()
        self.send_response(202)
        self.send_header("Content-Length", "0")
        self.end_headers()


def render(order: dict[str, str]) -> None:
    """Tell who ordered a frame what its name is."""
    report = json.dumps({"result": f"{order['film']}.frame"}).encode()
    headers = {"Content-Type": "application/json", "Hopline-Callback-Token": order["token"]}
    urlopen(Request(order["url"], data=report, headers=headers, method="POST")).close()


if __name__ == "__main__":
    server = ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1]) if len(sys.argv) > 1 else 8098), Farm)
    print(f"the farm listens on http://127.0.0.1:{server.server_port}", flush=True)
    server.serve_forever()

"""A stand-in for an ERP and a chat, with the standard library only: three shops, a token, one refusal each report.

    python examples/daily_sales/erp.py 8099

The address of the one report of a day is its key, so publishing twice is harmless. What is written to the chat is shown
at /chat.
"""

import json
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import urlsplit

TOKEN = "token-of-the-example"
SHOPS = [
    {"id": "berlin", "currency": "EUR", "sales": [120.0, 80.5, 99.5]},
    {"id": "boston", "currency": "USD", "sales": [200.0]},
    {"id": "basel", "currency": "CHF", "sales": []},
]
reports: dict[str, object] = {}
refused: set[str] = set()
chat: list[object] = []


class Erp(BaseHTTPRequestHandler):
    """``GET /v1/shops``; ``POST`` and ``GET`` of ``/chat`` and ``/v1/reports/{day}``, whose first POST gets a 503."""

    def do_GET(self) -> None:
        path = urlsplit(self.path).path
        if path == "/chat":
            self.answer(200, chat)
        elif not self.is_allowed():
            self.answer(401, {"error": "wrong token"})
        elif path == "/v1/shops":
            self.answer(200, SHOPS)
        elif path in reports:
            self.answer(200, reports[path])
        else:
            self.answer(404, {"error": f"there is no {path}"})

    def do_POST(self) -> None:
        report = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        if self.path == "/chat":
            chat.append(report)
            self.answer(200, None)
        elif not self.is_allowed():
            self.answer(401, {"error": "wrong token"})
        elif self.path not in refused:
            refused.add(self.path)
            self.answer(503, {"error": "closing the books, please come back"})
        else:
            reports[self.path] = report
            self.answer(201, {"url": f"http://{self.headers['Host']}{self.path}"})

    def is_allowed(self) -> bool:
        return self.headers["Authorization"] == TOKEN

    def answer(self, status: int, value: object) -> None:
        body = json.dumps(value).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


if __name__ == "__main__":
    server = ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1]) if len(sys.argv) > 1 else 8099), Erp)
    print(f"the ERP listens on http://127.0.0.1:{server.server_port}", flush=True)
    server.serve_forever()

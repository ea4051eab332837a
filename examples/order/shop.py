"""A stand-in for the stock, the payment gateway and the post, with the standard library only.

    python examples/order/shop.py 8097

The gateway declines amounts of 1000 and more with 402; others it takes with 202, and calls back soon.
"""

import json
import sys
import threading
from collections import Counter
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import count
from urllib.request import Request, urlopen

CARD_LIMIT = 1000
numbers = count(1)
calls: Counter[str] = Counter()


class Shop(BaseHTTPRequestHandler):
    """``POST`` to reservations, card, invoices, labels and ratings; ``DELETE /reservations/{id}``; ``GET /calls``."""

    def do_GET(self) -> None:
        self.answer(200, calls)

    def do_DELETE(self) -> None:
        calls[f"DELETE {self.path}"] += 1
        self.answer(200, None)

    def do_POST(self) -> None:
        calls[f"POST {self.path}"] += 1
        asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        match self.path:
            case "/reservations":
                self.answer(201, {"id": f"r{next(numbers)}"})
            case "/card" if asked["amount"] >= CARD_LIMIT:
                self.answer(402, {"error": "the card was declined"})
            case "/card":
                threading.Timer(0.2, self.report, ({"id": f"p{next(numbers)}", "method": "card"},)).start()
                self.answer(202, None)
            case "/invoices":
                self.answer(201, {"id": f"i{next(numbers)}", "method": "invoice"})
            case "/labels":
                self.answer(201, {"tracking": f"t-{asked['order']}"})
            case "/ratings":
                self.answer(200, None)
            case _:
                self.answer(404, {"error": f"there is no {self.path}"})

    def report(self, payment: dict[str, str]) -> None:
        """Tell the caller of ``/card`` that the money is there."""
        token = {"Hopline-Callback-Token": self.headers["Hopline-Callback-Token"], "Content-Type": "application/json"}
        body = json.dumps({"result": payment}).encode()
        urlopen(Request(self.headers["Hopline-Callback-Url"], data=body, headers=token, method="POST")).close()

    def answer(self, status: int, value: object) -> None:
        body = json.dumps(value).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


if __name__ == "__main__":
    server = ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1]) if len(sys.argv) > 1 else 8097), Shop)
    print(f"the shop listens on http://127.0.0.1:{server.server_port}", flush=True)
    server.serve_forever()

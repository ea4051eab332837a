"""A task handler in Flask. It prints what it is sent, and is busy the first time, so that you can watch a retry.

    pip install flask
    flask --app examples/flask_handler/app run --port 8080

A real handler would do its work once for each key and answer repetitions with the same result.
"""

from collections import Counter

from flask import Flask, request

app = Flask(__name__)
calls: Counter[str] = Counter()


@app.post("/my-task-handler")
def handle() -> tuple[dict[str, object], int]:
    """Answer 503 to the first attempt of a step and 200 to the next; the key is the same over all attempts."""
    key = request.headers["Idempotency-Key"]
    payload = request.get_json()
    print(f"{key}, attempt {request.headers['Hopline-Attempt']}: {payload}", flush=True)
    calls[key] += 1
    if calls[key] == 1:
        return {"error": "busy, please come back"}, 503
    return {"received": payload, "calls": calls[key]}, 200

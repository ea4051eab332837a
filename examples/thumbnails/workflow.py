"""Thumbnails of an album: wait for the upload, resize each picture, keep what went wrong, let a farm do the films.

The graph of one file is decided at run time: a film needs a frame first, which a rendering farm makes. The farm takes
an order, and calls back when the frame is there; no worker waits for it.

    python examples/thumbnails/farm.py 8098
    hopline run examples/thumbnails/workflow.py:album_job folder=path/to/pictures farm=http://127.0.0.1:8098
"""

import json
from pathlib import Path
from urllib.request import Request, urlopen

from pydantic import BaseModel

from hopline import Err, Ok, Pending, Queue, Retry, context, defer, dynamic, sensor, step, workflow

gpu = Queue("gpu", max_concurrent=8)
DONE = "upload.done"
"""The file that says that an album is there as a whole."""


class Album(BaseModel):
    files: list[str]


class Thumb(BaseModel):
    file: str
    width: int


class Summary(BaseModel):
    made: list[str]
    failed: int


@sensor(every="2s", timeout="6h")
def upload_finished(folder: str) -> Album | None:
    """Return the album once it is there; None means "not yet"."""
    place = Path(folder)
    if not (place / DONE).exists():
        return None
    return Album(files=sorted(str(path) for path in place.iterdir() if path.name != DONE))


@step(retry=Retry(2, first="100ms"), timeout="1m")
def resize(file: str, width: int) -> Thumb:
    """Make the thumbnail of a picture; of nothing none can be made."""
    picture = Path(file)
    if picture.suffix != ".frame" and not picture.read_bytes():
        raise ValueError(f"{picture.name} is empty")
    return Thumb(file=picture.name, width=width)


@step(queue=gpu, deadline="2h")
def first_frame(film: str, farm: str) -> Pending[str]:
    """Order the first frame of a film; its name comes to the callback URL."""
    attempt = context()
    order = {"film": Path(film).name, "url": attempt.callback_url, "token": attempt.callback_token}
    urlopen(Request(f"{farm}/orders", data=json.dumps(order).encode(), method="POST")).close()
    return defer()


@dynamic
def one(file: str, farm: str) -> Thumb:
    """Wire what one file needs: called once for each, with the real name, and never again for it."""
    if file.endswith(".mov"):
        return resize(first_frame(file, farm), 320)
    return resize(file, 320)


@step
def count(results: list[Ok[Thumb] | Err]) -> Summary:
    """Tell what was made, and of how many nothing was."""
    made = [result.value.file for result in results if isinstance(result, Ok)]
    return Summary(made=made, failed=len(results) - len(made))


@workflow
def album_job(folder: str, farm: str) -> Summary:
    """Make the thumbnails of one album; one bad picture does not sink it."""
    album = upload_finished(folder)
    return count(one.using(max_parallel=500).map_settled(album.files, farm))


@workflow
def nightly(folders: list[str], farm: str) -> list[Summary]:
    """Make those of several albums."""
    return album_job.map(folders, farm)

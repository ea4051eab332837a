"""``python -m hopline_engine.worker PATH...``: see ``options``."""

import sys
from pathlib import Path


def _run() -> int:
    # ``python -m`` puts the working directory first; a user's file called asyncio.py would be taken for the real one.
    # The loader adds the directory again, behind the standard library.
    if sys.path and not sys.flags.safe_path and Path(sys.path[0] or ".").absolute() == Path.cwd():
        del sys.path[0]
    from hopline_engine.worker import options  # see above

    chosen = options.parse()
    if chosen.processes > 1:
        from hopline_engine.worker.processes import supervise  # it needs a tenth of what serving needs

        return supervise(chosen)
    from hopline_engine.worker.serve import serve

    return serve(chosen)


if __name__ == "__main__":
    sys.exit(_run())

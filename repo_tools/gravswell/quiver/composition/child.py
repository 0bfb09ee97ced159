"""A pipeline's Python in an interpreter that knows nothing else: run by :mod:`gravswell.quiver.composition.fresh`.

``python -I child.py FOLDER PACKAGES…`` imports ``gravswell_calling.py`` and the source of the version in FOLDER, and
nothing of gravswell; what is installed it finds in its own folders and in PACKAGES. It answers over its standard
streams, one message after the other: what it is to run comes in, and for each call of a member a question goes out
whose answer comes in. What the function prints goes to stderr.
"""

import importlib.util
import io
import json
import os
import sys
import threading
import traceback
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

Arrays = dict[str, Any]


def send(stream: BinaryIO, kind: str, text: str = "", arrays: "Arrays | None" = None) -> None:
    """Write one message: a line of JSON, and arrays as ``.npz``. Text goes as fixed-width unicode."""
    data = io.BytesIO()
    plain = {
        name: array.astype(np.str_) if array.dtype.kind == "O" else array for name, array in (arrays or {}).items()
    }
    np.savez(data, allow_pickle=False, **plain)
    head = json.dumps({"kind": kind, "text": text, "size": data.tell()})
    stream.write(head.encode() + b"\n" + data.getvalue())
    stream.flush()


def receive(stream: BinaryIO) -> "tuple[str, str, Arrays]":
    """Read one message: its kind, text and arrays. EOFError where the other side is gone."""
    line = stream.readline()
    if not line:
        raise EOFError
    head = json.loads(line)
    with np.load(io.BytesIO(stream.read(head["size"])), allow_pickle=False) as stored:
        arrays = {name: stored[name] for name in stored.files}
    texts = {name: array.astype(object) if array.dtype.kind == "U" else array for name, array in arrays.items()}
    return head["kind"], head["text"], texts


def load(folder: Path, name: str) -> Any:
    """The module in the file ``name``."""
    spec = importlib.util.spec_from_file_location(name[:-3], folder / name)
    assert spec is not None, "a .py file has a loader"
    assert spec.loader is not None, "a .py file has a loader"
    module = importlib.util.module_from_spec(spec)
    sys.modules[name[:-3]] = module
    spec.loader.exec_module(module)
    return module


def where(error: BaseException, folder: Path) -> str:
    """The line of the shipped source that raised it, as the end of a message."""
    frames = [f for f in traceback.extract_tb(error.__traceback__) if folder / "source" in Path(f.filename).parents]
    return f" (in {frames[-1].name}: {frames[-1].line})" if frames else ""


def main(folder: Path, incoming: BinaryIO, outgoing: BinaryIO) -> None:
    """Serve until the other side ends."""
    calling = load(folder, "gravswell_calling.py")

    asking = threading.Lock()  # the function may call members from threads, and there is one channel
    called = False

    def ask(alias: str, feed: Arrays) -> Arrays:
        with asking:
            if not called:  # by a thread that the function left behind
                raise RuntimeError("a member is called after the function has returned")
            send(outgoing, "call", alias, feed)
            kind, text, arrays = receive(incoming)
        if kind == "failed":
            raise RuntimeError(text)
        return arrays

    pipeline = calling.load(folder, ask, carried=False)
    send(outgoing, "ready")
    while True:
        try:
            _, _, given = receive(incoming)
        except EOFError:
            return
        called = True
        try:
            done: tuple[str, str, Arrays] = ("done", "", pipeline(given, carried=False))
        except Exception as error:  # noqa: BLE001 - whatever the user's function raises is told
            done = ("failed", f"{type(error).__name__}: {error}{where(error, folder)}", {})
        with asking:
            called = False
            send(outgoing, *done)


if __name__ == "__main__":
    channel = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    sys.path += [packages for packages in sys.argv[2:] if packages not in sys.path]
    try:
        main(Path(sys.argv[1]), sys.stdin.buffer, channel)
    except Exception as error:  # noqa: BLE001 - told to whoever waits for "ready"
        traceback.print_exc()
        send(channel, "failed", f"{type(error).__name__}: {error}")

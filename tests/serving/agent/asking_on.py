"""A program: one client of one protocol that never pauses, and says for each request what came of it.

``python asking_on.py grpc|http ADDRESS MODEL WIDTH``. It begins once the model is ready there, says ``ready``, then for
each request a line of JSON: the factor that the answer shows, or in words what went wrong. It ends with its input.
"""

import importlib
import json
import sys
import threading
import time

import numpy as np

READY_SECONDS = 90.0


def main(protocol: str, address: str, model: str, width: int) -> None:
    triton = importlib.import_module(f"tritonclient.{protocol}")
    ended = threading.Event()
    threading.Thread(target=lambda: (sys.stdin.read(), ended.set()), daemon=True).start()
    x = np.full((2, width), 7.0, np.float32)
    with triton.InferenceServerClient(address) as client:
        until_ready(client, model)
        print("ready", flush=True)
        while not ended.wait(0.005):
            tensor = triton.InferInput("x", list(x.shape), "FP32")
            tensor.set_data_from_numpy(x)
            try:
                y = client.infer(model, [tensor]).as_numpy("y")
            except Exception as error:  # noqa: BLE001  whatever it is, it is a failed request
                print(json.dumps(f"{type(error).__name__}: {error}"), flush=True)
            else:
                print(json.dumps(float(y[0, 0] / x[0, 0])), flush=True)


def until_ready(client: object, model: str) -> None:
    deadline, why = time.monotonic() + READY_SECONDS, "it is not"
    while time.monotonic() < deadline:
        try:
            if client.is_model_ready(model):  # type: ignore[attr-defined]
                return
        except Exception as error:  # noqa: BLE001  nobody listens yet, or no route leads there
            why = str(error)
        time.sleep(0.05)
    sys.exit(f"{model} was not ready within {READY_SECONDS:.0f} s: {why}")


if __name__ == "__main__":
    main(*sys.argv[1:4], int(sys.argv[4]))

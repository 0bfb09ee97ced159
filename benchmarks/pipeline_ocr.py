"""RapidOCR's detection, direction and recognition as one entry, beside the same three steps in one process, in one run.

``python benchmarks/pipeline_ocr.py [--calls 3] [--rounds 5] [--awake] [--output json]``

A picture goes in, boxes, texts and scores come out: the pipeline of the tests, whose function cuts and turns between
the three networks, served by the embedded Triton and asked over gRPC and over REST by tritonclient, one request at a
time. *In one process* is the same function over the same networks in ONNX Runtime; beside it is RapidOCR's own package.
All have one thread for a network, as every instance in the server has. The pictures are photographs of scikit-image, a
printed page and a line of handwriting; before anything is timed all ways must have read the same in them. The bar holds
the pipeline in the server and the whole call, beside the faster of the two in one process.
"""

import argparse
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from bars import hold
from embedded_server import session_of
from pipeline_calls import Array, Call, Counts, awake, beside, clients, counts, judged, missed, table, timed
from rich.console import Group

from gravswell.cli.output import Output, emit
from gravswell.serving.triton import EmbeddedTriton, ensure_triton

ROOT = Path(__file__).parents[1]
ENTRY, OUTPUTS = "reader", ("boxes", "texts", "scores")
FUNCTION, PACKAGE = "the same function, in one process", "RapidOCR's own package, in one process"


def steps_of(ocr: Any, alphabet: Path) -> Callable[[Array], Sequence[Array]]:
    """The pipeline's function in this process."""

    def member(name: str) -> Callable[[Array], Array]:
        session = session_of(str(ocr.network(name)))
        (x,) = session.get_inputs()
        return lambda value: session.run(None, {x.name: value})[0]

    read: Callable[[Array], Sequence[Array]] = partial(
        ocr.read, alphabet=alphabet, **{name: member(name) for name in ocr.NETWORKS}
    )
    return read


def compared(found: Sequence[Array], reading: Sequence[tuple[Any, str, float]]) -> None:
    """AssertionError where boxes, texts and scores are not those of what RapidOCR's package has read."""
    boxes, texts, scores = found
    assert [text.decode() if isinstance(text, bytes) else text for text in texts] == [text for _, text, _ in reading]
    np.testing.assert_array_equal(boxes, [box for box, *_ in reading])
    np.testing.assert_allclose(scores, [score for *_, score in reading], atol=1e-4)


def beside_one_process(
    local: Mapping[str, Call], served: Mapping[str, Call], count: Callable[[], Counts], calls: int, rounds: int
) -> dict[str, Any]:
    """The figures of one picture; ``count`` is what the server has counted so far."""
    taken = timed({**local, **served}, calls, rounds, lambda way: count() if way in served else {})
    here = {way: taken.pop(way).whole for way in local}
    three = beside(min(here.values()), taken)
    three["here_ms"] = {way: round(seconds * 1e3, 3) for way, seconds in here.items()}
    return three | {"bar": judged(three, held=True)}


def measure(calls: int, rounds: int) -> dict[str, Any]:
    """The figures of each picture."""
    sys.path.insert(0, str(ROOT))
    from tests.models import ocr  # noqa: PLC0415  the pipeline is the tests'

    ensure_triton()
    figures = {}
    with tempfile.TemporaryDirectory(prefix="gravswell-benchmark-") as scratch, ocr.own_pipelines() as made:
        root = Path(scratch)
        pictures = ocr.photographs()
        alphabet = ocr.alphabet(root)
        ocr.imported(ocr.hand_made(root / "theirs"), root / "ours")
        ocr.publish_reader(root / "ours", pictures["page"], alphabet)
        theirs = made(intra_op_num_threads=1, inter_op_num_threads=1)
        here = steps_of(ocr, alphabet)
        with EmbeddedTriton(root / "ours") as server, clients(server) as asked:
            count = partial(counts, server, ENTRY, dict.fromkeys(ocr.NETWORKS, 1))
            for name, picture in pictures.items():
                local: dict[str, Call] = {FUNCTION: partial(here, picture), PACKAGE: partial(theirs, picture)}
                served = {way: partial(ask, ENTRY, *OUTPUTS, image=picture) for way, ask in asked.items()}
                reading = ocr.own_reading(theirs, picture)
                for way in (local[FUNCTION], *served.values()):
                    compared(way(), reading)
                figures[name] = beside_one_process(local, served, count, calls, rounds) | {"lines": len(reading)}
    return figures


def shown(figures: Mapping[str, Any]) -> Group:
    """The figures for a person."""
    told: list[Any] = []
    for name, three in figures.items():
        told.append(table(f"RapidOCR's three steps, {name}, {three['lines']} lines of text", three))
        told += [f"{way}: {ms:,.2f} ms" for way, ms in three["here_ms"].items()]
        told.append("")
    return Group(*told)


def main() -> None:
    """Measure and print; exits with 1 if a bar is missed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--calls", type=int, default=3, help="calls for each figure in each round")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--awake", action="store_true", help="let no processor sleep meanwhile")
    parser.add_argument("--output", choices=["text", "json"], default="text")
    options = parser.parse_args()
    with awake() if options.awake else nullcontext():
        figures = measure(options.calls, options.rounds)
    emit(Output(options.output), figures, lambda: shown(figures))
    hold(missed({f"RapidOCR's three steps, {name}": three for name, three in figures.items()}))


if __name__ == "__main__":
    main()

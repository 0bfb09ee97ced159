"""An exporter in a process of its own: ``python exporting.py URL COUNT LOG MODEL.onnx``; run by the tests beside it.

It exports to the entry ``m``, and appends each version's number to LOG once it is said to be published.
"""

import sys
from pathlib import Path

from gravswell import quiver as qv

url, count, log, model = sys.argv[1:]
entry = qv.ModelRepository.open(url).models["m"]
with Path(log).open("a", buffering=1) as said:
    for _ in range(int(count)):
        said.write(entry.export_version(model).split("/")[-2] + "\n")

"""A process of its own, where Keras runs on torch: it exports to the given repository and says what came of it."""

import json
import os
import sys

os.environ["KERAS_BACKEND"] = "torch"

import keras
from keras import layers

from gravswell import quiver as qv
from gravswell.errors import GravswellError


def functional() -> keras.Model:
    a, b = keras.Input((4,), name="a"), keras.Input((3,), dtype="int32", name="b")
    joined = layers.Concatenate()([a, layers.Flatten()(layers.Embedding(10, 2)(b))])
    normalized = layers.Dropout(0.5)(layers.BatchNormalization()(joined))
    return keras.Model({"b": b, "a": a}, {"score": layers.Dense(1)(normalized), "kind": layers.Dense(2)(joined)})


def main(url: str) -> None:
    repo = qv.ModelRepository(url)
    said = {}
    for name, model in {
        "functional": functional(),
        "never-built": keras.Sequential([layers.Dense(2)]),
    }.items():
        try:
            repo.add(name).export_version(model)
            said[name] = repo.models[name].versions[-1].manifest.verification.reference
        except GravswellError as error:
            said[name] = str(error)
    print(json.dumps({"said": said, "tensorflow": "tensorflow" in sys.modules}))


if __name__ == "__main__":
    main(sys.argv[1])

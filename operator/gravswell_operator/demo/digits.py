"""The demo's model: a small network that learns scikit-learn's digits, 1,797 real images of 8 x 8 pixels.

Two frameworks train the same thing; everything after :class:`Trainer` is the same for both.
"""

import warnings
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from gravswell.errors import UnsupportedError
from gravswell.extras import install

Floats = npt.NDArray[np.float32]
Labels = npt.NDArray[np.int64]

PIXELS = 64
CLASSES = 10
FRAMEWORKS = ("sklearn", "torch")


@dataclass(frozen=True)
class Digits:
    """The data set, split 3:1. Images are (n, 64) in [0, 1]; labels are (n,) in 0…9."""

    train_images: Floats
    train_labels: Labels
    test_images: Floats
    test_labels: Labels


class Trainer(Protocol):
    """A network that can be trained a little further at a time."""

    model: Any
    """The framework's own object, as ``Entry.export_version`` takes it."""
    framework: str
    """Name and version of the framework, for display."""
    first_export: dict[str, Any]
    """What the first export is told; later ones need nothing."""

    def train(self, epochs: int) -> None:
        """Go over the training set ``epochs`` more times."""

    def scores(self, images: Floats) -> Floats:
        """The framework's own (n, 10) scores of ``images``, without ONNX."""


def load_digits() -> Digits:
    """The data set, from scikit-learn's own files."""
    try:
        from sklearn import datasets  # noqa: PLC0415  the demo's extra
    except ModuleNotFoundError:
        raise UnsupportedError(f"the demo needs scikit-learn: {install('demo')}") from None

    images, labels = datasets.load_digits(return_X_y=True)
    images = (images / 16).astype(np.float32)
    labels = labels.astype(np.int64)
    order = np.random.default_rng(0).permutation(len(images))
    test, train = order[: len(order) // 4], order[len(order) // 4 :]
    return Digits(images[train], labels[train], images[test], labels[test])


def trainer(framework: str, data: Digits) -> Trainer:
    """A fresh, untrained network of the named framework (one of :data:`FRAMEWORKS`)."""
    return SklearnTrainer(data) if framework == "sklearn" else TorchTrainer(data)


class SklearnTrainer:
    """scikit-learn's ``MLPClassifier``. Its exported outputs are the label and the probabilities."""

    def __init__(self, data: Digits) -> None:
        import sklearn  # noqa: PLC0415  the demo's extra
        from sklearn.neural_network import MLPClassifier  # noqa: PLC0415

        self._data = data
        self.model: Any = MLPClassifier(hidden_layer_sizes=(128, 64), random_state=0)
        self.framework = f"scikit-learn {sklearn.__version__}"
        self.first_export: dict[str, Any] = {}

    def train(self, epochs: int) -> None:
        """As :meth:`Trainer.train`."""
        with warnings.catch_warnings():
            # scikit-learn takes a KeyboardInterrupt for the wish to train less, and warns that it did.
            warnings.filterwarnings("error", message="Training interrupted by user")
            try:
                for _ in range(epochs):
                    self.model.partial_fit(self._data.train_images, self._data.train_labels, classes=range(CLASSES))
            except UserWarning:
                raise KeyboardInterrupt from None

    def scores(self, images: Floats) -> Floats:
        """As :meth:`Trainer.scores`: probabilities."""
        probabilities: Floats = self.model.predict_proba(images).astype(np.float32)
        return probabilities


class TorchTrainer:
    """The notebook's own: a ``torch.nn.Module`` of linear layers. Its exported output is named ``scores``."""

    def __init__(self, data: Digits) -> None:
        try:
            import torch  # noqa: PLC0415  an extra
        except ModuleNotFoundError:
            raise UnsupportedError(f"--framework torch needs PyTorch: {install('torch')}") from None

        torch.manual_seed(0)
        self._torch = torch
        self._data = data
        self.model: Any = torch.nn.Sequential(
            torch.nn.Linear(PIXELS, 128),
            torch.nn.ReLU(),
            torch.nn.Linear(128, 64),
            torch.nn.ReLU(),
            torch.nn.Linear(64, CLASSES),
        )
        self._optimizer = torch.optim.Adam(self.model.parameters())
        self.framework = f"torch {torch.__version__}"
        self.first_export: dict[str, Any] = {"input_shapes": {"x": (None, PIXELS)}, "output_names": ["scores"]}

    def train(self, epochs: int) -> None:
        """As :meth:`Trainer.train`."""
        torch = self._torch
        rows = torch.utils.data.TensorDataset(
            torch.from_numpy(self._data.train_images), torch.from_numpy(self._data.train_labels)
        )
        self.model.train()
        for _ in range(epochs):
            for images, labels in torch.utils.data.DataLoader(rows, batch_size=200, shuffle=True):
                self._optimizer.zero_grad()
                torch.nn.functional.cross_entropy(self.model(images), labels).backward()
                self._optimizer.step()

    def scores(self, images: Floats) -> Floats:
        """As :meth:`Trainer.scores`: logits."""
        self.model.eval()
        with self._torch.no_grad():
            scores: Floats = self.model(self._torch.from_numpy(images)).numpy()
        return scores

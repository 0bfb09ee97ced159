"""The demo's first half, without a cluster: train, publish verified versions, serve them with the real Triton."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from gravswell import quiver as qv
from gravswell.errors import VerificationError
from gravswell.quiver.layout import version_at
from gravswell.utils import print_tree
from gravswell_operator.demo.asking import scores
from gravswell_operator.demo.digits import CLASSES, Digits, Floats, Trainer
from gravswell_operator.demo.view import Story

ENTRY = "digits"


@dataclass
class Lab:
    """What the demo's scientist has: the data, the network in training and the repository she publishes to."""

    data: Digits
    trainer: Trainer
    repository: qv.ModelRepository
    directory: Path
    expected: Floats
    """The framework's own scores of the test set, for the latest version."""

    @property
    def entry(self) -> qv.Entry:
        """The demo's one entry."""
        return self.repository.models[ENTRY]

    @property
    def input_name(self) -> str:
        """The entry's one input, the images."""
        [name] = self.entry.inputs
        return name

    def accuracy(self, scores: Floats) -> float:
        """Share of the test set that ``scores`` (n, 10) get right."""
        return float((scores.argmax(axis=1) == self.data.test_labels).mean())


def publish(story: Story, lab: Lab, *, epochs: int) -> int:
    """Train on for ``epochs``, export the next version, and return its number."""
    first = not lab.entry.versions
    with story.step(f"train {'' if first else 'on '}for {epochs} epochs") as step:
        lab.trainer.train(epochs)
        lab.expected = lab.trainer.scores(lab.data.test_images)
        step.note = f"{lab.accuracy(lab.expected):.1%} of the test set right"
    with story.step("export" if first else "export the next version, no shapes given") as step:
        path = lab.entry.export_version(lab.trainer.model, **(lab.trainer.first_export if first else {}))
        number = version_at(path)
        step.note = f"version {number}, verified in ONNX Runtime against {lab.trainer.framework}"
    return number


def show_repository(story: Story, lab: Lab) -> None:
    """Print the repository's tree and the entry's config."""
    story.say("")
    print_tree(str(lab.directory))
    story.say(f"\n[dim]{ENTRY}/config.pbtxt[/]")
    story.console.print(str(lab.entry.config).rstrip(), highlight=False, markup=False)


async def classify(story: Story, lab: Lab, addresses: list[str], *, title: str) -> None:
    """Send the test set to the servers at ``addresses`` and hold the answers against the framework's own.

    Raises :class:`VerificationError` when an output differs.
    """
    images = lab.data.test_images
    done = 0

    with story.step(title, spinner=False) as step:
        with story.progress() as show:

            def arrived(rows: int) -> None:
                nonlocal done
                done += rows
                show("images", done, len(images))

            outputs = await scores(addresses, ENTRY, lab.input_name, images, on_rows=arrived)
        served = next(o for o in outputs.values() if o.shape == (len(images), CLASSES))
        worst = float(np.abs(served - lab.expected).max())
        if not np.allclose(served, lab.expected, rtol=1e-3, atol=1e-4):
            raise VerificationError(
                f"the served outputs of {ENTRY} differ from the framework's by up to {worst:.2g}: "
                f"please report this with the output of the demo"
            )
        step.note = f"equal to the framework's (largest difference {worst:.0e}), accuracy {lab.accuracy(served):.1%}"

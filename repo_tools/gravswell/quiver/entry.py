"""One entry of a repository: a model's name, its configuration and its versions."""

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from gravswell.errors import InvalidInputError, NotFoundError
from gravswell.quiver import aliases
from gravswell.quiver.aliases import Expected
from gravswell.quiver.composition.base import Composite, Wishes
from gravswell.quiver.composition.config import is_pipeline
from gravswell.quiver.config import ConfigText, ModelConfig
from gravswell.quiver.datatypes import parse_data_type
from gravswell.quiver.disk import refusals_told
from gravswell.quiver.fetching import Progress
from gravswell.quiver.layout import check_version, config_key, version_folder
from gravswell.quiver.live import Config
from gravswell.quiver.manifest import TensorRecord, main_file
from gravswell.quiver.pins import PINS_COUNT_FOR, pin
from gravswell.quiver.platform import Platform
from gravswell.quiver.prune import GRACE, Duration, Pruning, Rules, prune
from gravswell.quiver.publication import Publication
from gravswell.quiver.reader import RepositoryReader
from gravswell.quiver.removal import remove_version
from gravswell.quiver.request import Samples, Shapes, batches_of, export_request
from gravswell.quiver.signature import tensors_of
from gravswell.quiver.state import Move
from gravswell.quiver.stored import stored_config
from gravswell.quiver.stores import Create, Store, Update
from gravswell.quiver.version import Version

if TYPE_CHECKING:
    from gravswell.quiver.variants import Kind, Quantized


class Entry:
    """One entry. Made by :class:`~gravswell.quiver.repository.ModelRepository`; everything is read when asked for."""

    def __init__(self, store: Store, name: str) -> None:
        self.name = name
        self._store = store
        self._reader = RepositoryReader(store)
        self._etag: str | None = None
        self._config: Config | None = None

    def __repr__(self) -> str:
        return f"Entry({self.name!r} in {self._store.location('')})"

    @property
    def repository_url(self) -> str:
        """The URL of the repository that it is in."""
        return self._store.url

    @property
    def platform(self) -> Platform:
        """What kind of model it holds."""
        config = self.config.message
        return Platform.PIPELINE if is_pipeline(config) else Platform.parse(config.platform)

    @property
    def config(self) -> Config:
        """The configuration, as it is now; edits of it are written at once."""
        if self._config is None:
            self._config = Config(self.name, self._read_config, self._write_config)
        else:
            self._config.refresh()
        return self._config

    @property
    def inputs(self) -> dict[str, TensorRecord]:
        """The inputs by name, with the batch dim; empty before the first version."""
        signature = tensors_of(self.config.message)
        return {record.name: record for record in signature.inputs} if signature else {}

    @property
    def outputs(self) -> dict[str, TensorRecord]:
        """The outputs by name, with the batch dim; empty before the first version."""
        signature = tensors_of(self.config.message)
        return {record.name: record for record in signature.outputs} if signature else {}

    @property
    def versions(self) -> list[Version]:
        """The versions in ascending order. They are ints: ``entry.versions[-1] + 1``."""
        return [Version.of(self._reader, self.name, info) for info in reversed(self._reader.versions(self.name))]

    def version(self, number: int | None = None) -> Version:
        """One version, the newest by default. NotFoundError, naming those that exist, if it does not."""
        if number is None:
            newest = self._reader.newest(self.name)
            if newest is None:
                raise NotFoundError(f"{self.name} has no version yet: export one first (gravswell export)")
            return Version.of(self._reader, self.name, newest)
        return Version.of(self._reader, self.name, self._reader.version(self.name, number))

    def export_version(
        self,
        model: Any,
        input_shapes: Shapes | None = None,
        output_names: Sequence[str] | None = None,
        *,
        version: int | None = None,
        input_types: Mapping[str, Any] | None = None,
        sample_inputs: Samples | None = None,
        max_batch_size: int | None = None,
        opset: int | None = None,
        target: str | None = None,
        rtol: float | None = None,
        atol: float | None = None,
        on_stage: Callable[[str], None] = lambda _: None,
        on_progress: Progress | None = None,
    ) -> str:
        """Export ``model`` as the next version, proved and all at once, and return where its ``model.onnx`` is.

        ``model``: a torch module or exported program, a Keras model, a fitted scikit-learn, XGBoost or LightGBM model,
        the path of what Keras, TensorFlow, XGBoost or LightGBM saved, an ONNX file or ``ModelProto``, or several in
        one, of :func:`qv.fuse <gravswell.quiver.fusion.fuse>`. It is run in ONNX Runtime against the framework's own
        outputs, at several batch sizes, before it is published. Whatever fails leaves no version, no changed
        configuration, and the model as it was. Once the version is there nothing fails: an entry whose configuration
        cannot be written then is healed by its readers. An entry of ``Platform.PIPELINE`` takes a
        :func:`gravswell.pipelines.pipeline`; what is returned then is where its ``model.py`` or, of an ensemble, its
        configuration is.

        :param input_shapes: shape of each input, None for a dynamic dim: ``{"x": (None, 64)}``. Later exports take them
            from the entry; Keras, scikit-learn, XGBoost, LightGBM and ONNX models know theirs. Of an ONNX model they
            choose the sizes at which it is proved, where its graph leaves any open; the entry's stay the graph's.
        :param output_names: a name for each output, in order.
        :param version: its number, above all earlier ones; the next one by default.
        :param input_types: numpy or Triton types, where an input is not of the model's own floating type.
        :param sample_inputs: one batch, or several, to prove it with in place of random ones; a DataFrame is one with
            an input for each column. Real rows are the real proof: random ones reach only some of what a model has
            learnt. The manifest records which they were.
        :param max_batch_size: let the server form batches of up to so many rows: the leading dim goes out of the
            configuration. By default the client's batches reach the model as they are.
        :param opset: the ONNX opset to export to, up to the newest that ``target`` takes.
        :param target: tag of the oldest Triton that is to run it, from ``20.11`` on, 24.08 by default: the graph keeps
            the limits of its ONNX Runtime, an existing graph is converted down where ONNX can, and the manifest says
            which it was.
        :param rtol: relative tolerance of the proof; by default after each output's type.
        :param atol: absolute tolerance, likewise.
        :param on_stage: called with what is being done, for a progress display.
        :param on_progress: called with the bytes that a bucket has of the version, and the bytes in all.
        :raises ExportError: the model cannot become ONNX, or a size is hard-coded in it.
        :raises VerificationError: the exported graph answers otherwise than the framework.
        :raises InvalidInputError: wrong arguments, or a signature other than the earlier versions'. Also a ValueError.
        :raises NotFoundError: the entry was removed meanwhile.
        :raises UnavailableError: the disk takes no more.
        :raises ConflictError: ``version`` is or was in use, or the entry was replaced meanwhile.
        """
        from gravswell.quiver.exporters import build  # noqa: PLC0415 - imports ONNX

        if version is not None:
            check_version(version)
        if max_batch_size is not None and (not isinstance(max_batch_size, int) or max_batch_size < 0):
            raise InvalidInputError(f"max_batch_size={max_batch_size!r}: use a whole number, 0 for none")
        publication = Publication(self._store, self.name, max_batch_size=max_batch_size, version=version)
        stated = publication.earlier()
        types = {name: parse_data_type(value, tensor=name) for name, value in (input_types or {}).items()}
        config = publication.config().message
        self._check_platform(model, config, opset=opset, target=target)
        with self._store.staging() as stage, refusals_told(stage):
            if isinstance(model, Composite):
                wishes = Wishes(
                    entry=self.name,
                    stated=stated,
                    input_shapes=input_shapes,
                    input_types=types,
                    output_names=None if output_names is None else tuple(output_names),
                    samples=batches_of(sample_inputs),
                    max_batch_size=config.max_batch_size,
                    rtol=rtol,
                    atol=atol,
                    stage=on_stage,
                    progress=on_progress,
                )
                built = model.build(self._reader, stage, wishes)
            else:
                request = export_request(
                    model,
                    input_shapes,
                    output_names,
                    stated=stated,
                    types=types,
                    samples=sample_inputs,
                    opset=opset,
                    target=target,
                )
                built = build(
                    request,
                    stage,
                    input_types=types,
                    rows_apart=publication.batched(),
                    rtol=rtol,
                    atol=atol,
                    stage=on_stage,
                )
            on_stage("publishing")
            file = main_file({path.name for path in stage.iterdir()})  # which the publication may take away
            number = publication.publish(stage, built, on_progress)
        return self._store.location(f"{version_folder(self.name, number)}/{file}")

    def quantize(
        self,
        kind: "Kind",
        *,
        version: int | None = None,
        calibration: Samples | None = None,
        max_error: float | None = None,
        min_agreement: float | None = None,
        on_stage: Callable[[str], None] = lambda _: None,
        on_progress: Progress | None = None,
    ) -> "Quantized":
        """Publish ``version`` (the newest by default) in lower precision, as the next version, and return its figures.

        ``fp16`` halves it, for GPUs. ``int8`` is for CPUs, a quarter of the size: with ``calibration`` everything
        between the layers is computed in 8 bits, without it only products with weights are. Inputs and outputs stay
        what they are. The outputs are compared with the golden ones, and the largest differences are in the manifest.

        :param calibration: batches of real inputs, as :meth:`export_version` takes them as ``sample_inputs``; an opened
            ``.npz`` is one. They are measured with too; a few rows take the place of golden ones that were made up.
        :param max_error: how much an output may differ, as a share of its largest magnitude: 0.01 for fp16 and 0.1 for
            int8 by default. Every server that is to serve it is held to that as well.
        :param min_agreement: on which share of the rows the largest score of each output must be the same one, and an
            integer or text equal; by default it is only measured.
        :param on_stage: called with what is being done, for a progress display.
        :param on_progress: called with the bytes moved and the bytes in all.
        :raises VerificationError: it differs by more, and the message has the figures; nothing is published.
        :raises InvalidInputError: nothing in the graph can be converted, such as in an ensemble of trees; or the
            version is a variant itself.
        :raises ExportError: ONNX Runtime cannot convert the graph.
        """
        from gravswell.quiver.variants import quantize  # noqa: PLC0415 - imports ONNX

        return quantize(
            self._store,
            self.name,
            kind,
            int(self.version(version)),
            calibration=batches_of(calibration, "calibration"),
            max_error=max_error,
            min_agreement=min_agreement,
            stage=on_stage,
            progress=on_progress,
        )

    def republish(
        self,
        version: int | None = None,
        *,
        on_stage: Callable[[str], None] = lambda _: None,
        on_progress: Progress | None = None,
    ) -> Version:
        """Publish ``version`` (the newest by default) again, as the next one, with :attr:`config` as it is by now.

        That is how an edit of the configuration reaches servers: each version is served with its own. The graph, its
        golden batches and its proof are the old version's; the parameters are those of :meth:`quantize`.

        :raises InvalidInputError: the version has this configuration already; or it allows the server to put requests
            together, and the version was not proved for that.
        :raises NotFoundError: there is no such version.
        """
        from gravswell.quiver.republication import republish  # noqa: PLC0415 - imports ONNX

        number = int(self.version(version))
        return self.version(republish(self._store, self.name, number, stage=on_stage, progress=on_progress))

    @property
    def aliases(self) -> dict[str, int]:
        """Names that point at versions: ``{"champion": 3}``."""
        return self._reader.aliases(self.name)

    def history(self, alias: str | None = None) -> list[Move]:
        """The moves of ``alias``, or of every alias, oldest first: what moved when, by whom, and why.

        :raises NotFoundError: there is no such alias, and there never was.
        """
        return aliases.history(self._reader, self.name, alias)

    def promote(
        self,
        version: int,
        alias: str,
        *,
        expect: Expected = "any",
        verify: bool = True,
        reason: str = "",
        by: str | None = None,
        progress: Progress | None = None,
    ) -> Move | None:
        """Let ``alias`` name ``version``. Returns the move; None, and nothing is written, where it does already.

        :param expect: the version that it names now, or None for an alias that does not exist yet: compare-and-swap.
        :param verify: hash the version's files first, where they lie.
        :param reason: one line for the history.
        :param by: who does this; ``user@host`` by default.
        :param progress: called with the bytes hashed and the bytes in all.
        :raises ConflictError: it is not as expected, and the message says who moved it when; or ``version`` is being
            removed.
        :raises NotFoundError: there is no such version.
        :raises VerificationError: a file differs from the manifest, or there is none to verify by.
        :raises InvalidInputError: ``alias`` is no name for one: small letters, digits and ``-``, not ``latest``.
        """
        return aliases.promote(
            self._reader,
            self.name,
            version,
            alias,
            expect=expect,
            verify=verify,
            reason=reason,
            by=by,
            progress=progress,
        )

    def rollback(
        self,
        alias: str,
        *,
        steps: int = 1,
        to: int | None = None,
        expect: Expected = "any",
        verify: bool = False,
        reason: str = "",
        by: str | None = None,
        progress: Progress | None = None,
    ) -> Move:
        """Let ``alias`` name the version again that it named before the present one, and return the move.

        It undoes, and a second rollback undoes one move more: after promotions of 3, 4 and 5, rollbacks lead to 4 and
        then to 3, and never forth to the 5 that was wrong. What undoes a rollback is to promote 5 again.

        :param steps: how many moves to go back.
        :param to: in place of that: the version to go back to, one that it named on the way.
        :param verify: hash the version's files first. They were when it was promoted, and agents do so again before
            they serve it, so that an emergency need not wait for it.
        :raises NotFoundError: there is no such alias, nothing before, or the version there was removed.
        :raises ConflictError: as of :meth:`promote`, which has the other parameters too.
        """
        return aliases.rollback(
            self._reader,
            self.name,
            alias,
            steps=steps,
            to=to,
            expect=expect,
            verify=verify,
            reason=reason,
            by=by,
            progress=progress,
        )

    def unalias(self, alias: str, *, expect: Expected = "any", reason: str = "", by: str | None = None) -> Move:
        """Take ``alias`` away, and return the move. Its history stays; a rollback does not bring it back.

        NotFoundError, naming those that exist, if there is none; the parameters are those of :meth:`promote`.
        """
        return aliases.unalias(self._reader, self.name, alias, expect=expect, reason=reason, by=by)

    def pin(self, cluster: str, versions: Collection[int]) -> None:
        """Remember that ``cluster`` serves just these ``versions`` now: they stay for a week. None: forget it."""
        pin(self._reader, self.name, cluster, versions)

    def prune(
        self,
        keep: int | None = None,
        older_than: Duration | None = None,
        *,
        grace: Duration = GRACE,
        served: Mapping[str, Sequence[str]] | None = None,
        pins_within: Duration = PINS_COUNT_FOR,
        only: Collection[int] | None = None,
        leaving: Mapping[str, Collection[int]] | None = None,
        dry_run: bool = True,
        on_removed: Callable[[int], None] = lambda _: None,
    ) -> Pruning:
        """Remove old versions, or say which would go (``dry_run``, the default); each verdict has its reasons.

        A version goes if it is beyond the newest ``keep`` *and* older than ``older_than``, as far as these are given.
        It never goes while it is the newest; named by an alias, or where a rollback of one leads; served by a cluster;
        a pipeline's member; younger than ``grace`` in this store; or not one of ours. Its number is never used again.

        :param older_than: ``30d``, ``12h``, or a timedelta.
        :param served: versions that somebody serves, by their digests, each with the names of who does.
        :param pins_within: how old a pin of a cluster may be that holds versions.
        :param only: of what may go, remove only these: what a dry run showed and somebody agreed to.
        :param leaving: versions of pipelines, by their entry, that are pruned first and hold no members any more.
        :param on_removed: called with each version that is gone, for a progress display.
        :raises InvalidInputError: neither ``keep`` nor ``older_than``, or one that cannot be meant.
        """
        rules = Rules.of(
            keep, older_than, grace=grace, served=served, pins_within=pins_within, only=only, leaving=leaving
        )
        return prune(self._reader, self.name, rules, dry_run=dry_run, on_removed=on_removed)

    def remove_version(self, number: int, *, even_served: bool = False) -> None:
        """Remove a version. Its number is never used again.

        ConflictError while an alias names it, or a cluster said within a week that it serves it: for the latter there
        is ``even_served``. NotFoundError if it is not there.
        """
        remove_version(self._reader, self.name, number, even_served=even_served)

    def _check_platform(self, model: Any, config: Any, *, opset: int | None, target: str | None) -> None:
        if not isinstance(model, Composite):
            if is_pipeline(config):
                raise InvalidInputError(
                    f"{self.name} is an entry of pipelines, and a {type(model).__name__} is none: add an entry of its "
                    f"own for the model, and call it in the pipeline"
                )
            return
        if not is_pipeline(config):
            raise InvalidInputError(
                f"{self.name} is an entry of models, and a pipeline is made of other entries: add one for it with "
                f"--platform pipeline (add(…, qv.Platform.PIPELINE))"
            )
        if opset is not None or target is not None:
            raise InvalidInputError("a pipeline has no graph: its members have an opset and a target; leave them out")

    def _read_config(self) -> ConfigText:
        try:
            stored = stored_config(self._reader, self.name)
        except NotFoundError:
            raise NotFoundError(f"{self!r} was removed") from None
        self._etag = stored.etag
        return stored.config

    def _write_config(self, text: str) -> None:
        mode = Create() if self._etag is None else Update(self._etag)
        self._etag = self._store.write(config_key(self.name), text.encode(), mode)


def new_config(name: str, platform: Platform) -> str:
    """The configuration of an entry that has no version yet."""
    return ConfigText.from_message(ModelConfig(name=name, platform=platform.value)).render()

"""Checks of folders, names, versions and model files."""

from collections.abc import Iterator

from gravswell.errors import InvalidInputError
from gravswell.quiver import layout
from gravswell.quiver.layout import CONFIG, parse_version
from gravswell.quiver.lint import rules
from gravswell.quiver.lint.facts import FOLDERS, ModelFacts, VersionFacts, model_path
from gravswell.quiver.lint.rules import Finding

_PROTOBUF_LIMIT = 2**31


def check_name(model: ModelFacts) -> Iterator[Finding]:
    """What the model is called."""
    try:
        layout.check_name(model.name)
    except InvalidInputError as error:
        yield rules.NAME_UNUSABLE.at(model.name, str(error).partition("; use ")[0])
    if model.config.name not in ("", model.name):
        yield rules.NAME_DIFFERS.at(
            model.place, f"the config is named {model.config.name!r}, the folder {model.name!r}"
        )


def check_versions(model: ModelFacts) -> Iterator[Finding]:
    """Which versions Triton reads from the folders' names, and which of them its policy chooses."""
    misread = {version.folder for version in model.loaded if version.misread}
    for version in model.loaded:
        if version.folder in misread:
            fact = f"Triton takes this folder for version {version.number}, and loads a folder that is not there"
            yield rules.VERSION_MISREAD.at(f"{model.name}/{version.folder}", fact)
    for folder in model.children.folders:
        if folder not in misread and folder not in FOLDERS and parse_version(folder) is None:
            yield rules.VERSION_STRAY.at(f"{model.name}/{folder}", "the folder's name is no version's number")
    labels = {output.label_filename for output in model.config.output}
    for file in model.children.files:
        if file != CONFIG and file not in labels:
            yield rules.FILE_STRAY.at(f"{model.name}/{file}", "nothing in the config names this file")
    policy = model.config.version_policy
    existing = ", ".join(map(str, sorted(model.numbers))) or "none"
    for number in policy.specific.versions:
        if number not in model.numbers:
            yield rules.POLICY_ABSENT.at(model.place, f"there is no version {number}; there are: {existing}")
    if not model.loaded:
        yield rules.NO_VERSION.at(model.name, f"Triton would load none of its versions ({existing})")


def check_platform(model: ModelFacts) -> Iterator[Finding]:
    """Whether anything says which backend loads it."""
    config = model.config
    if model.text is not None and not config.platform and not config.backend and not model.ensemble:
        guess = f"Triton goes by the files, which say {model.backend}" if model.backend else "and no file says which"
        yield rules.PLATFORM_GUESSED.at(model.place, f"neither platform nor backend is stated; {guess}", "platform")


def check_files(model: ModelFacts, version: VersionFacts) -> Iterator[Finding]:
    """The model file of a version."""
    if model.ensemble or model.file is None or version.misread:
        return
    place = f"{model.name}/{version.number}"
    path = model_path(model, version)
    if path is None:
        held = ", ".join(f.path for f in version.files[:5]) or "nothing"
        yield rules.FILE_MISSING.at(place, f"there is no {model.file}; the version holds {held}")
        return
    size = next(f.size for f in version.files if f.path == path)
    if size >= _PROTOBUF_LIMIT and model.backend == "onnxruntime":
        yield rules.FILE_TOO_LARGE.at(f"{place}/{path}", f"the file has {size / 2**30:.1f} GiB")


def check_published(model: ModelFacts) -> Iterator[Finding]:
    """The working config against the newest published one."""
    if model.text is not None and model.published is not None and model.text != model.published:
        yield rules.CONFIG_UNPUBLISHED.at(model.place, "it was edited since the newest version was published")

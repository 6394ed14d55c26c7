"""The folder beside a file: the uploads of versions, three files each."""

import hashlib
from pathlib import Path

import msgspec

from contender.client import Client
from contender.contracts.limits import NAME
from contender.errors import ContenderError
from contender.installation.document import Present
from contender.uploads import Upload, upload_of

_MANIFEST, _SAMPLE = ".manifest.json", ".sample.json"


def write_uploads(client: Client, present: Present, folder: Path) -> int:
    """Write the uploads of all versions to a folder; those that are there already stay. Returns how many were written.

    Raises:
        ContenderError: an upload was not kept, or the folder can't be written.
    """
    written = 0
    try:
        for known in present.versions:
            path = _path(folder, known.model, known.version)
            if not path.exists():
                upload = client.upload(known.model, known.version)
                path.parent.mkdir(parents=True, exist_ok=True)
                path.with_suffix(_MANIFEST).write_bytes(upload["manifest"][1])
                path.with_suffix(_SAMPLE).write_bytes(upload["sample"][1])
                path.write_bytes(upload["onnx"][1])  # last: with it the version is there
                written += 1
    except OSError as error:
        raise ContenderError(f"{error.filename} can't be written: {error.strerror}") from error
    return written


def has_upload(folder: Path | None, model: str, version: str) -> bool:
    """Whether a folder has the upload of a version, with the bytes that its name stands for."""
    if folder is None or NAME.fullmatch(model) is None or NAME.fullmatch(version) is None:
        return False
    path = _path(folder, model, version)
    parts = (path, path.with_suffix(_MANIFEST), path.with_suffix(_SAMPLE))
    return all(part.is_file() for part in parts) and hashlib.sha256(path.read_bytes()).hexdigest() == version


def read_upload(folder: Path, model: str, version: str) -> Upload:
    """The upload of a version.

    Raises:
        ContenderError: a file can't be read.
    """
    path = _path(folder, model, version)
    try:
        manifest, sample = (path.with_suffix(suffix).read_bytes() for suffix in (_MANIFEST, _SAMPLE))
        return upload_of(path.read_bytes(), msgspec.Raw(manifest), msgspec.Raw(sample))
    except OSError as error:
        raise ContenderError(f"{error.filename} can't be read: {error.strerror}") from error


def _path(folder: Path, model: str, version: str) -> Path:
    return folder / model / f"{version}.onnx"

"""The files of model versions: what was uploaded, what runs, and what its trial found."""

import hashlib
import os
import re
import threading
from pathlib import Path

import msgspec

from services.inference_service.domain.cost import TrialRecord

_SHA256 = re.compile(r"[0-9a-f]{64}")


class ModelFiles:
    """ONNX files, named by the sha256 of the uploaded file, with the records of their trials and the samples.

    The file that runs is the checked one: it lacks what the check does not know, so its own sha256 may be another one.
    The upload is kept beside it then, since only that makes the same version elsewhere.
    """

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._folder = folder

    def write(self, version: str, content: bytes) -> None:
        """Keep a file: after a crash it is whole or missing."""
        self._replace(self.path(version), content)

    def read(self, version: str) -> bytes:
        """The file of a version.

        Raises:
            FileNotFoundError: there is none.
        """
        return self.path(version).read_bytes()

    def path(self, version: str) -> Path:
        """The path of a version's file.

        Raises:
            FileNotFoundError: the name is not a sha256.
        """
        if _SHA256.fullmatch(version) is None:
            raise FileNotFoundError(version)
        return self._folder / f"{version}.onnx"

    def write_record(self, model: str, version: str, record: TrialRecord) -> None:
        """Keep the record of a version's trial; two models with the same file have a record each."""
        self._replace(self._record_path(model, version), msgspec.json.encode(record))

    def record(self, model: str, version: str) -> TrialRecord | None:
        """The record of a version's trial; None where there is none, as for versions of earlier releases."""
        path = self._record_path(model, version)
        try:
            return msgspec.json.decode(path.read_bytes(), type=TrialRecord)
        except (FileNotFoundError, msgspec.DecodeError):
            return None

    def write_upload(self, model: str, version: str, onnx: bytes, sample: bytes) -> None:
        """Keep what was uploaded, for whoever registers the version elsewhere; call it after `write`."""
        if self.read(version) != onnx:
            self._replace(self.path(version).with_suffix(".upload"), onnx)
        self._replace(self._sample_path(model, version), sample)

    def uploaded(self, version: str) -> bytes | None:
        """The file as it was uploaded; None where it was not kept, as for some versions of earlier releases."""
        for path in (self.path(version).with_suffix(".upload"), self.path(version)):
            if path.exists() and hashlib.sha256(content := path.read_bytes()).hexdigest() == version:
                return content
        return None

    def sample(self, model: str, version: str) -> bytes | None:
        """The sample of a version's upload in JSON; None where it was not kept."""
        path = self._sample_path(model, version)
        return path.read_bytes() if path.exists() else None

    def _sample_path(self, model: str, version: str) -> Path:
        return self._record_path(model, version).with_suffix(".sample")

    def _record_path(self, model: str, version: str) -> Path:
        # A hash, since a file system may take two names for one.
        return self.path(version).with_suffix(f".{hashlib.sha256(model.encode()).hexdigest()[:16]}.json")

    def _replace(self, path: Path, content: bytes) -> None:
        temporary = path.with_name(f"{path.name}.{threading.get_ident()}.new")
        with temporary.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)

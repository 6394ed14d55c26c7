"""From a fitted pipeline or a ready ONNX file to a registered version: export, parity check, manifest, upload.

Only the ONNX file, the manifest and a sample of rows cross the wire; no pickle ever does.
"""

from contender.extras import needs_extra

with needs_extra("notebook", "registering models"):
    from contender.registration.exporting import TOLERANCE, export_pipeline
    from contender.registration.manifest import Export, Recorded
    from contender.registration.parity import SAMPLE_ROWS
    from contender.registration.reading import is_file
    from contender.registration.ready import export_file
    from contender.registration.uploading import RegisteredVersion, register

__all__ = [
    "SAMPLE_ROWS",
    "TOLERANCE",
    "Export",
    "Recorded",
    "RegisteredVersion",
    "export_file",
    "export_pipeline",
    "is_file",
    "register",
]

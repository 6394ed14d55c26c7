"""What people import and type: the client, the command line and the embedded stack."""

from contender.client import Client, Experiment
from contender.errors import ContenderError, ExportError, ParityError, RefusedError, UnreachableError

__all__ = ["Client", "ContenderError", "Experiment", "ExportError", "ParityError", "RefusedError", "UnreachableError"]

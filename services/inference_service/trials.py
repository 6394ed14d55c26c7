"""Trials of uploaded models: a bounded number at once, the others in a bounded queue."""

from dataclasses import dataclass

import msgspec

from services.inference_service.errors import AnswerError, ManifestError, ParityError, UnsafeModelError
from services.inference_service.limited_process import LimitedProcess, ProcessEndedError
from services.inference_service.settings import InferenceSettings
from services.inference_service.trial import Finding, Trial
from services.inference_service.turns import Turns
from shared.errors import InvalidField, TooLarge

_MODULE = "services.inference_service.trial"
_KINDS = {kind.__name__: kind for kind in (UnsafeModelError, ManifestError, ParityError, AnswerError, TooLarge)}
_START_S = 15.0
"""Longest that starting Python and its libraries may take."""
_SPARE_BYTES = 1024**2


@dataclass(frozen=True, slots=True)
class TrialResult:
    """The result of a trial, and the checked file, which runs from then on."""

    finding: Finding
    checked: bytes


class Trials:
    """Runs trials in processes of their own."""

    def __init__(self, settings: InferenceSettings) -> None:
        self._settings = settings
        wait_s = (_START_S + settings.trial_seconds) * (1 + settings.trial_queue_limit / settings.trial_limit)
        self._turns = Turns(settings.trial_limit, settings.trial_queue_limit, wait_s, "a trial run")

    async def run(self, trial: Trial, content: bytes, sample: bytes) -> TrialResult:
        """Try a file with a sample.

        Raises:
            Overloaded: too many uploads wait.
            UnsafeModelError: the file is refused, or the trial hits a limit.
            ManifestError: the manifest does not fit the file.
            ParityError: the answers differ by more than the tolerance.
            AnswerError, TooLarge, InvalidField: the model can't answer the sample.
        """
        async with self._turns.turn():
            answer_limit = self._settings.model_limit_bytes + _SPARE_BYTES
            process = await LimitedProcess.start(_MODULE, answer_limit_bytes=answer_limit)
            try:
                await process.ask([msgspec.msgpack.encode(trial), content, sample], _START_S)
                head, checked = await process.ask([b""], trial.seconds)
            except ProcessEndedError as error:
                limits = f"{trial.seconds} s and {trial.memory_bytes >> 20} MB of memory"
                raise UnsafeModelError.at("onnx", f"did not survive its trial run within {limits}") from error
            finally:
                await process.end()
        finding = msgspec.msgpack.decode(head, type=Finding)
        if finding.kind:
            detail = "; ".join(f"{error.field} {error.message}" for error in finding.errors)
            raise _KINDS.get(finding.kind, InvalidField)(detail, finding.errors)
        return TrialResult(finding, checked)

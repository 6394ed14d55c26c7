"""A process that answers for one model version: `python -m services.inference_service.model_process`.

Reads an Opening, and says that the version is open; then reads one call after the other, its columns (in JSON, whose
integers have no limit) and its seconds, and writes ScoredRows. It ends when nobody reads its answers any more.
"""

from pathlib import Path

import msgspec

from contender.contracts.inference_service import ModelVersion
from contender.contracts.values import Scalar
from services.inference_service.answering import Answering, Limits
from services.inference_service.child_process import (
    ParentPipes,
    growth_limited,
    limit_files,
    limit_memory,
    time_limited,
)
from services.inference_service.session import Session
from services.inference_service.watchdog import Watchdog
from shared.errors import FieldError, InvalidField


class Opening(msgspec.Struct, frozen=True):
    """The version that the process shall answer for, and the limits of its calls."""

    file: str
    version: ModelVersion
    reference: dict[str, Scalar]
    limits: Limits
    run_rows: int
    seconds: int
    memory_bytes: int
    call_bytes: int


class OpeningResult(msgspec.Struct, frozen=True):
    """The version is open, or why it is not."""

    errors: list[FieldError] = []


def open_version(opening: Opening) -> Answering:
    """Open the version within the limits.

    Raises:
        InvalidField: it is refused.
    """
    watchdog = Watchdog()
    watchdog.start()
    limit_memory(opening.memory_bytes)
    with time_limited(opening.seconds):
        content = Path(opening.file).read_bytes()
        session = Session.of(content, opening.version)
    return Answering(session, opening.version.inputs, opening.reference, opening.limits, watchdog, opening.run_rows)


def main() -> None:
    """Open, then answer until there is nobody to answer."""
    pipes = ParentPipes()
    limit_files()
    [head] = pipes.read()
    opening = msgspec.msgpack.decode(head, type=Opening)
    try:
        answering = open_version(opening)
    except InvalidField as problem:
        pipes.write([msgspec.msgpack.encode(OpeningResult(problem.errors))])
        return
    pipes.write([msgspec.msgpack.encode(OpeningResult())])
    decoder = msgspec.json.Decoder(dict[str, list[Scalar]])
    while call := pipes.read():
        columns, seconds = call
        inputs = decoder.decode(columns)
        with growth_limited(opening.call_bytes):
            answers = answering.answer(inputs, float(seconds))
        pipes.write([msgspec.msgpack.encode(answers)])


if __name__ == "__main__":
    main()

"""A Contender for tests of applications: `Client(transport=FakeContender().transport)` needs no running services."""

from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import count
from urllib.parse import unquote

import httpx
import msgspec
from msgspec import UNSET

from contender.contracts.ab_router import PREDICT, PREDICT_BATCH, Outputs, Prediction, PredictionRow, PredictionRows
from contender.contracts.feedback_service import (
    GET_RESULTS,
    LIST_VERDICTS,
    FeedbackItem,
    Results,
    VerdictEvent,
    VerdictEvents,
)
from contender.contracts.values import Outcome

_OUTCOMES_PATH = "/v1/feedback"


class _Reports(msgspec.Struct):
    feedback: list[FeedbackItem]


@dataclass
class FakeContender:
    """Answers predictions and takes feedback in this process, and remembers both.

    Attributes:
        answer: the outputs for a row; default: a score of 0.5 and the label True.
        version: the version that every prediction names.
        explore: whether the application is asked to let the row's label be seen; default: never.
        rows: the rows that were asked for, oldest first.
        outcomes: what came true, by prediction id.
        reports: all that was reported on predictions, ratings and the like as well, oldest first.
        results: the results that an experiment has, at any time, by its name.
        verdicts: the verdicts that an experiment has, by its name.

    Other calls, and those for experiments without results or verdicts here, are answered with 404, which `Client`
    raises as RefusedError.
    """

    answer: Callable[[PredictionRow], Outputs] = lambda _: Outputs(0.5, True)
    version: str = "fake"
    explore: Callable[[PredictionRow], bool] = lambda _: False
    rows: list[PredictionRow] = field(default_factory=list)
    outcomes: dict[str, Outcome] = field(default_factory=dict)
    reports: list[FeedbackItem] = field(default_factory=list)
    results: dict[str, Results] = field(default_factory=dict)
    verdicts: dict[str, list[VerdictEvent]] = field(default_factory=dict)
    _numbers: "count[int]" = field(default_factory=lambda: count(1))

    @property
    def transport(self) -> httpx.BaseTransport:
        """The transport for `Client(transport=...)`."""
        return httpx.MockTransport(self._serve)

    def _serve(self, request: httpx.Request) -> httpx.Response:
        path, body = request.url.path, request.content
        model = unquote(path.removeprefix("/v1/models/").partition("/")[0])
        try:
            if path == _OUTCOMES_PATH:
                reports = msgspec.json.decode(body, type=_Reports).feedback
                self.reports += reports
                self.outcomes |= {item.prediction_id: item.outcome for item in reports if item.outcome is not UNSET}
                return httpx.Response(202, json={"accepted": len(reports)})
            if path == unquote(PREDICT.url(model=model)):
                return _json(self._predict(model, msgspec.json.decode(body, type=PredictionRow)))
            if path == unquote(PREDICT_BATCH.url(model=model)):
                rows = msgspec.json.decode(body, type=PredictionRows).rows
                return _json({"predictions": [self._predict(model, row) for row in rows]})
            if (answer := self._known().get(path)) is not None:
                return _json(answer)
        except msgspec.ValidationError as error:
            return httpx.Response(422, json={"detail": str(error), "errors": []})
        return httpx.Response(404, json={"detail": f"FakeContender does not answer {request.method} {path}"})

    def _known(self) -> dict[str, Results | VerdictEvents]:
        """What is known of experiments, by path."""
        results = {unquote(GET_RESULTS.url(name=name)): known for name, known in self.results.items()}
        verdicts = {
            unquote(LIST_VERDICTS.url(name=name)): VerdictEvents(events) for name, events in self.verdicts.items()
        }
        return {**results, **verdicts}

    def _predict(self, model: str, row: PredictionRow) -> Prediction:
        self.rows.append(row)
        return Prediction(
            prediction_id=f"prediction-{next(self._numbers)}",
            model=model,
            version=self.version,
            variant=None,
            experiment=None,
            outputs=self.answer(row),
            degraded=False,
            explore=self.explore(row),
        )


def _json(answer: object) -> httpx.Response:
    return httpx.Response(200, content=msgspec.json.encode(answer))

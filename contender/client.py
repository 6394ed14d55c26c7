"""The client of people and applications: register versions, run experiments, predict, give feedback, read results."""

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self

import httpx
import msgspec

from contender.contracts import ab_router, feature_service, feedback_service, inference_service, problems
from contender.contracts.experiments import (
    CREATE_EXPERIMENT,
    LIST_EXPERIMENTS,
    SHOW_EXPERIMENT,
    START_EXPERIMENT,
    STOP_EXPERIMENT,
    ExperimentRevision,
    Guardrail,
)
from contender.contracts.values import ClockName, Hypothesis, Missing, Outcome, Scalar
from contender.errors import ContenderError, RefusedError, RegistrationWarning
from contender.experiments import conflict, declaration, differences
from contender.transport import ServiceName, Transport, decoded, service_urls

if TYPE_CHECKING:
    from contender.registration import RegisteredVersion

Refusal = problems.ProblemDetails
"""Why a row of a batch has no prediction. The row itself is the cause, so the same row is refused again."""


class _BatchRow(msgspec.Struct):
    error: Refusal | None = None


class Client:
    """Talks to a running Contender.

    Args:
        url: the router; default: the variable CONTENDER_URL, else `http://127.0.0.1:8400`. The other services are on
            the same host, on ports 8401 to 8403, unless CONTENDER_<SERVICE>_URL or CONTENDER_<SERVICE>_PORT says
            otherwise.
        timeout_s: longest wait for an answer.
        urls: where single services are, by name such as `feedback_service`, if the rule above does not find them.
        transport: another way to send; for tests.

    Every call raises RefusedError when a service refuses, UnreachableError when it does not answer, and ContenderError
    when the arguments can't be sent. Scalars of numpy and arrays of one element are sent as plain values.

    Raises:
        ContenderError: a URL is invalid.
    """

    def __init__(
        self,
        url: str | None = None,
        *,
        timeout_s: float = 30.0,
        urls: Mapping[ServiceName, str] | None = None,
        transport: httpx.BaseTransport | None = None,
    ) -> None:
        self._transport = Transport({**service_urls(url), **(urls or {})}, timeout_s=timeout_s, transport=transport)

    @property
    def url(self) -> str:
        """The URL of the router."""
        return self._transport.urls["ab_router"]

    @property
    def feature_url(self) -> str:
        """The URL of the feature service."""
        return self._transport.urls["feature_service"]

    @property
    def inference_url(self) -> str:
        """The URL of the inference service."""
        return self._transport.urls["inference_service"]

    @property
    def feedback_url(self) -> str:
        """The URL of the feedback service."""
        return self._transport.urls["feedback_service"]

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections."""
        self._transport.close()

    def register(
        self, model: str, pipeline: Any, columns: Any, labels: Any = None, **options: Any
    ) -> "RegisteredVersion":
        """Export a fitted pipeline to ONNX, check that it answers as scikit-learn does, and register it.

        Args:
            model: the model's name; its first version becomes the champion.
            pipeline: a fitted scikit-learn pipeline, or a ready ONNX file: its path, bytes or ModelProto.
            columns: the rows it was fitted on, shape (rows, inputs): a frame of pandas or polars, or an array.
            labels: the labels it was fitted to, shape (rows,).
            options: `sources`, `defaults`, `description`, `tolerance`, `tolerance_reason`, `training_set`, as
                `contender.registration.export_pipeline` has them; for a ready file `task` and `classes`, as
                `contender.registration.export_file` has them. A training set fills the sources of its own columns.
                Sources are pinned to today's feature versions, or to those of the training set. A source without a
                default has that of its definition.

        Returns:
            The version. Its `warnings`, also shown as Python warnings, say how it treats rows unlike those of training.

        Raises:
            ExportError: the pipeline can't be exported.
            ParityError: the exported model answers differently.
        """
        from contender import pinning, registration  # noqa: PLC0415 - needs the extra `notebook`, which applications do without

        training_set = options.get("training_set")
        sources = pinning.training_sources(training_set, columns) | dict(options.get("sources") or {})
        if sources:
            digests = {} if training_set is None else pinning.trained_digests(training_set.manifest)
            views = self._transport.call("feature_service", feature_service.SHOW_DEFINITIONS).views
            options |= pinning.pinned_options(views, sources, options.get("defaults") or {}, digests)
        export = registration.export_file if registration.is_file(pipeline) else registration.export_pipeline
        registered = registration.register(self._transport, model, export(pipeline, columns, labels, **options))
        for message in registered.warnings:
            warnings.warn(f"{model}: {message}", RegistrationWarning, stacklevel=2)
        return registered

    def versions(self) -> list[inference_service.ModelVersion]:
        """Every version of every model, oldest first, without manifests."""
        return self._transport.call("inference_service", inference_service.LIST_VERSIONS).versions

    def version(self, model: str, version: str = "champion") -> inference_service.VersionDetails:
        """One version with its manifest, by its name or an alias."""
        operation = inference_service.SHOW_VERSION
        return self._transport.call("inference_service", operation, model=model, version=version)

    def promote(self, model: str, version: inference_service.ModelVersion | str) -> None:
        """Make a version the champion, which answers outside of experiments."""
        body = {"version": version.version if isinstance(version, inference_service.ModelVersion) else version}
        self._transport.call("inference_service", inference_service.PROMOTE_VERSION, body=body, model=model)

    def experiment(
        self,
        model: str,
        *,
        challenger: inference_service.ModelVersion | str,
        champion: inference_service.ModelVersion | str = "champion",
        share: float = 0.5,
        metric: str | None = None,
        name: str | None = None,
        window_s: float = 86_400.0,
        missing: Missing = "excluded",
        clock: ClockName = "wall",
        cycle_days: int = 7,
        cycle_reason: str = "",
        hypothesis: Hypothesis = "superiority",
        margin: float = 0.0,
        guardrails: Sequence[Guardrail | Mapping[str, Any]] = (),
        **more: Any,
    ) -> "Experiment":
        """The running experiment or the draft with this configuration, else a new draft.

        It assigns no unit until it is started. A script that declares an experiment and starts it may run twice: the
        second run continues the experiment of the first, or its draft.

        Args:
            model: the model whose units are split.
            challenger: the version to test.
            champion: the version it is compared with; default: the model's champion.
            share: the challenger's share of the units.
            metric: the metric that decides; default: the first metric of the model's task, such as log loss.
            name: the experiment's name; default: the model's name and the time.
            window_s: how long after its prediction an outcome still counts.
            missing: whether a row without a label by then is excluded, or counts as negative.
            clock: `wall` for live traffic; `event` for a replay, whose rows carry times of the past.
            cycle_days: days after which conditions repeat, such as the week's 7; a verdict takes whole cycles. 0 lets
                rows alone decide, and needs a `cycle_reason`.
            cycle_reason: why days do not matter; the verdict's sentence repeats it.
            hypothesis: what a verdict claims; `non-inferiority` and `no difference` need a `margin`.
            margin: in the metric's own unit, how much worse is still no harm, or how large a difference does not
                matter.
            guardrails: metrics that the challenger must not harm, such as
                `{"metric": "auc", "margin": 0.01}`.
            more: `alpha`, `tuning_n`, `horizon_rows`, `coverage`, `fallback_value`, `early_s`, `time_zone`,
                `log_loss_clip`, `label_range`, `error_limit`, `outcome`, `shadow_share`, `labels_seen_if`,
                `exploration_share`, `segments`, `correction`, `value`, as the API has them.

        Raises:
            ContenderError: an experiment with another configuration runs on the model; the message says what differs
                and how to stop it.
        """
        versions = {"champion": self._version(model, champion), "challenger": self._version(model, challenger)}
        body = declaration(name, model, versions, share, metric) | {
            "window_s": window_s,
            "missing": missing,
            "clock": clock,
            "cycle_days": cycle_days,
            "cycle_reason": cycle_reason,
            "hypothesis": hypothesis,
            "margin": margin,
            "guardrails": [msgspec.to_builtins(guardrail) for guardrail in guardrails],
            **more,
        }
        known = [revision for revision in self.experiments() if revision.model == model]
        if running := next((revision for revision in known if revision.status == "running"), None):
            if differing := differences(running, body):
                raise ContenderError(conflict(running, differing))
            return Experiment(self, running.name)
        for revision in reversed(known):
            if revision.status == "draft" and name in (None, revision.name) and not differences(revision, body):
                return Experiment(self, revision.name)
        return self.create(body)

    def create(self, body: Mapping[str, Any]) -> "Experiment":
        """Declare any experiment; `body` is that of `POST /v1/experiments`."""
        return Experiment(self, self._transport.call("ab_router", CREATE_EXPERIMENT, body=body).name)

    def experiments(self) -> list[ExperimentRevision]:
        """Every experiment as it stands, oldest first."""
        return self._transport.call("ab_router", LIST_EXPERIMENTS).experiments

    def revision(self, experiment: str) -> ExperimentRevision:
        """An experiment as it stands."""
        return self._transport.call("ab_router", SHOW_EXPERIMENT, name=experiment)

    def predict(
        self,
        model: str,
        *,
        unit: str,
        entities: Mapping[str, str | int] | None = None,
        inputs: Mapping[str, Scalar] | None = None,
        context: Mapping[str, Scalar] | None = None,
        **more: Any,
    ) -> ab_router.Prediction:
        """One prediction; give its `prediction_id` with the feedback.

        `more` are further fields of a row, such as `time` and `return_inputs`, as the API has them.
        """
        row = {"unit": unit, "entities": entities or {}, "inputs": inputs or {}, "context": context or {}, **more}
        return self._transport.call("ab_router", ab_router.PREDICT, body=row, model=model)

    def predict_batch(self, model: str, rows: Sequence[Mapping[str, Any]]) -> list[ab_router.Prediction | Refusal]:
        """Predictions of several rows, in order; each row as `predict` takes it.

        A refused row has a Refusal in place of its prediction. If all rows are refused, the call raises RefusedError,
        whose errors name them.
        """
        answer = self._transport.call("ab_router", ab_router.PREDICT_BATCH, body={"rows": list(rows)}, model=model)
        return [
            decoded(row, _BatchRow, self.url).error or decoded(row, ab_router.Prediction, self.url)
            for row in answer.predictions
        ]

    def feedback(
        self,
        prediction_id: str,
        outcome: Outcome | None = None,
        *,
        rating: float | None = None,
        reward: float | None = None,
        conversion: bool | None = None,
        complaint: bool | None = None,
        shown: bool | None = None,
        decided: Outcome | None = None,
        at: float | None = None,
    ) -> None:
        """Report an outcome, or how the answer was taken; it is on disk when this returns.

        Give exactly one of the values. `shown` says that the answer was put before its user, and `decided` what a
        person decided: an override where it is another label than the answer's. A `conversion`, a `complaint` or
        `shown` of False takes one back. It was known at `at`, in seconds since 1970; default now.
        """
        values = {"outcome": outcome, "rating": rating, "reward": reward}
        values |= {"conversion": conversion, "complaint": complaint, "shown": shown, "decided": decided}
        given = {name: value for name, value in values.items() if value is not None}
        self.feedback_batch([{"prediction_id": prediction_id, **given, "time": at}])

    def feedback_batch(self, outcomes: Sequence[Mapping[str, Any]]) -> None:
        """Report on many predictions at once; each with `prediction_id`, one of `feedback`'s values, perhaps `time`."""
        self._transport.call("feedback_service", feedback_service.GIVE_FEEDBACK, body={"feedback": list(outcomes)})

    def results(self, experiment: str, as_of: float | None = None) -> feedback_service.Results:
        """The results of an experiment at this moment, or as they were kept at a time in seconds since 1970."""
        operation, query = feedback_service.GET_RESULTS, {"as_of": as_of}
        return self._transport.call("feedback_service", operation, query=query, name=experiment)

    def verdicts(self, experiment: str) -> list[feedback_service.VerdictEvent]:
        """The verdicts of an experiment and what was found after them, in order."""
        operation = feedback_service.LIST_VERDICTS
        return self._transport.call("feedback_service", operation, name=experiment).verdicts

    def change(self, experiment: str, action: str) -> ExperimentRevision:
        """Start or stop an experiment; `action` is `start` or `stop`."""
        operations = {"start": START_EXPERIMENT, "stop": STOP_EXPERIMENT}
        if action not in operations:
            raise ContenderError(f"action is {action!r}; expected start or stop")
        return self._transport.call("ab_router", operations[action], name=experiment)

    def _version(self, model: str, version: inference_service.ModelVersion | str) -> inference_service.ModelVersion:
        return version if isinstance(version, inference_service.ModelVersion) else self.version(model, version)


@dataclass(frozen=True, slots=True)
class Experiment:
    """An experiment by its name."""

    client: Client
    name: str

    def start(self) -> Self:
        """Assign units to its variants from now on; a running experiment continues."""
        try:
            self.client.change(self.name, "start")
        except RefusedError as error:
            if error.status != httpx.codes.CONFLICT or self.client.revision(self.name).status != "running":
                raise
        return self

    def stop(self) -> Self:
        """End the assignment of units: the model's champion answers."""
        self.client.change(self.name, "stop")
        return self

    def results(self, as_of: float | None = None) -> feedback_service.Results:
        """The results at this moment, or as they were kept at a time in seconds since 1970: those never change."""
        return self.client.results(self.name, as_of)

    def verdicts(self) -> list[feedback_service.VerdictEvent]:
        """The verdicts and what was found after them, in order."""
        return self.client.verdicts(self.name)

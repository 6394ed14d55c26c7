"""The client of people and applications: register versions, run experiments, predict, give feedback, read results."""

import warnings
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Self

import httpx
import msgspec

from contender import application_calls as calls
from contender.addresses import ServiceName, service_urls
from contender.application_calls import Refusal
from contender.contracts import ab_router, experiments, feature_service, feedback_service, inference_service
from contender.contracts.experiments import Evidence, ExperimentRevision, Guardrail, HistoryEntry, Readiness
from contender.contracts.values import ClockName, Hypothesis, Missing, Outcome, Scalar
from contender.errors import ExperimentWarning, RegistrationWarning
from contender.experiment import Experiment as Experiment  # noqa: PLC0414 - who imports the client, imports it as well
from contender.experiments import (
    ACTIONS,
    change_of,
    declaration,
    declared_already,
    differences,
    disagreement,
    promotion,
)
from contender.transport import Transport
from contender.uploads import TIMEOUT_S, Upload, upload_of

if TYPE_CHECKING:
    from contender.registration import RegisteredVersion


class Client:
    """Talks to a running Contender.

    Args:
        url: the router; default: the variable CONTENDER_URL, else `http://127.0.0.1:8400`. The other services are on
            the same host, on ports 8401 to 8403, unless CONTENDER_<SERVICE>_URL or CONTENDER_<SERVICE>_PORT says
            otherwise.
        timeout_s: longest wait for an answer, all attempts together.
        retries: how often a call is sent again after a failure that may pass: no answer, or a refusal for the moment.
            Only calls that change nothing twice are: those that read, feedback, and predictions, which get a
            `request_id` each for it. The router then looks each id up before it answers, so it is off by default.
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
        retries: int = 0,
        urls: Mapping[ServiceName, str] | None = None,
        transport: httpx.BaseTransport | None = None,
    ) -> None:
        everywhere = {**service_urls(url), **(urls or {})}
        self._transport = Transport(everywhere, timeout_s=timeout_s, retries=retries, transport=transport)
        self._retries = retries

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
            options |= pinning.pinned_options(self.definitions().views, sources, options.get("defaults") or {}, digests)
        export = registration.export_file if registration.is_file(pipeline) else registration.export_pipeline
        registered = registration.register(self._transport, model, export(pipeline, columns, labels, **options))
        for message in registered.warnings:
            warnings.warn(f"{model}: {message}", RegistrationWarning, stacklevel=2)
        return registered

    def register_upload(self, model: str, upload: Upload) -> inference_service.VersionSummary:
        """Register a version by the parts of its upload, such as `upload` gives of another installation's version."""
        operation = inference_service.REGISTER_VERSION
        return self._transport.call("inference_service", operation, files=upload, timeout_s=TIMEOUT_S, model=model)

    def upload(self, model: str, version: str) -> Upload:
        """The parts of a version's upload, which make the same version elsewhere.

        Raises:
            RefusedError: it was not kept: the version was registered with an earlier release.
        """
        call = self._transport.call
        file = call("inference_service", inference_service.DOWNLOAD_FILE, model=model, version=version)
        sample = call("inference_service", inference_service.SHOW_SAMPLE, model=model, version=version)
        return upload_of(file, self.version(model, version).manifest, sample)

    def definitions(self) -> feature_service.DefinitionsDocument:
        """The feature definitions, with every version of a view that is served."""
        return self._transport.call("feature_service", feature_service.SHOW_DEFINITIONS)

    def versions(self) -> list[inference_service.ModelVersion]:
        """Every version of every model, oldest first, without manifests."""
        return self._transport.call("inference_service", inference_service.LIST_VERSIONS).versions

    def version(self, model: str, version: str = "champion") -> inference_service.VersionDetails:
        """One version with its manifest, by its name or an alias."""
        operation = inference_service.SHOW_VERSION
        return self._transport.call("inference_service", operation, model=model, version=version)

    def promote(
        self,
        model: str,
        version: inference_service.ModelVersion | str,
        *,
        reason: str = "",
        evidence: Evidence | feedback_service.VerdictEvent | None = None,
        changed_by: str = "",
        override: str = "",
    ) -> inference_service.VersionSummary:
        """Make a version the champion, which answers outside of experiments; no request is dropped.

        Args:
            model: its name.
            version: the version, or its whole name.
            reason: why, for the record.
            evidence: the verdict that it rests on, such as one of `verdicts()`.
            changed_by: who promotes it.
            override: why it is promoted against what a verdict says.
        """
        name = version.version if isinstance(version, inference_service.ModelVersion) else version
        body = promotion(name, evidence, reason=reason, changed_by=changed_by, override=override)
        return self._transport.call("inference_service", inference_service.PROMOTE_VERSION, body=body, model=model)

    def rollback(self, model: str, reason: str = "", *, changed_by: str = "") -> inference_service.VersionSummary:
        """Make the version the champion that was it before the last promotion that is not undone yet.

        Raises:
            RefusedError: no promotion of the model is on record, or all are undone.
        """
        body = inference_service.Rollback(changed_by, reason)
        return self._transport.call("inference_service", inference_service.ROLL_BACK, body=body, model=model)

    def promotions(self, model: str) -> list[inference_service.PromotionRecord]:
        """A model's promotions and rollbacks, oldest first."""
        operation = inference_service.LIST_PROMOTIONS
        return self._transport.call("inference_service", operation, model=model).promotions

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
    ) -> Experiment:
        """The experiment of this name, or of this configuration, else a new draft, which assigns no unit yet.

        A script that declares an experiment and starts it may run twice: the second run continues the experiment of
        the first. Where that one has another configuration, `differences` of the answer and an ExperimentWarning say
        how it differs, and it goes on as it is. A draft of the name is revised instead.

        Args:
            model: the model whose units are split.
            challenger: the version to test.
            champion: the version it is compared with; default: the model's champion.
            share: the challenger's share of the units; with `shadow` it has none.
            metric: the metric that decides; default: the first metric of the model's task, such as log loss.
            name: the experiment's name; default: that of an experiment on the model with this configuration that has
                not stopped, else the model's name and the time.
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
                `exploration_share`, `segments`, `correction`, `value`, `auto_stop`, `shadow`, `canary`, `bandit`,
                `namespace`, `targeting`, `forced`, `holdout`, `unit_missing`, `owner`, `changed_by`, `reason`, as the
                API has them.
        """
        versions = {"champion": self._version(model, champion), "challenger": self._version(model, challenger)}
        body = declaration(name, model, versions, 0.0 if more.get("shadow") else share, metric) | {
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
        known = declared_already(self.experiments(), body, is_named=name is not None)
        if known is None:
            return self.create(body)
        differing = differences(known, body)
        if known.status == "draft" and differing:
            return self.revise(known.name, {**body, "revision": known.revision})
        if differing or known.status == "stopped":
            warnings.warn(disagreement(known, differing), ExperimentWarning, stacklevel=2)
        return Experiment(self, known.name, tuple(differing))

    def create(self, body: Mapping[str, Any]) -> Experiment:
        """Declare any experiment; `body` is that of `POST /v1/experiments`."""
        return Experiment(self, self._transport.call("ab_router", experiments.CREATE_EXPERIMENT, body=body).name)

    def revise(self, experiment: str, body: Mapping[str, Any]) -> Experiment:
        """Replace a draft; of a started experiment all but its design, its seed and its allocation."""
        operation = experiments.REVISE_EXPERIMENT
        return Experiment(self, self._transport.call("ab_router", operation, body=body, name=experiment).name)

    def experiments(self) -> list[ExperimentRevision]:
        """Every experiment as it stands, oldest first."""
        return self._transport.call("ab_router", experiments.LIST_EXPERIMENTS).experiments

    def revision(
        self, experiment: str, revision: int | None = None, *, as_of: float | None = None
    ) -> ExperimentRevision:
        """An experiment as it stands, as its revision of a number, or as it stood at a time in seconds since 1970."""
        query = {"revision": revision, "as_of": as_of}
        return self._transport.call("ab_router", experiments.SHOW_EXPERIMENT, query=query, name=experiment)

    def history(self, experiment: str) -> list[HistoryEntry]:
        """The revisions of an experiment, oldest first, each with its changes."""
        return self._transport.call("ab_router", experiments.SHOW_HISTORY, name=experiment).history

    def readiness(self, experiment: str) -> Readiness:
        """What speaks against starting an experiment: traffic that does not suit, and others on the model."""
        return self._transport.call("ab_router", experiments.SHOW_READINESS, name=experiment)

    def stop_all(self, model: str, reason: str = "", *, changed_by: str = "") -> list[ExperimentRevision]:
        """Stop all experiments on a model at once: its champion answers."""
        body = change_of("stop", reason=reason, changed_by=changed_by)
        return self._transport.call("ab_router", experiments.STOP_EXPERIMENTS, body=body, model=model).experiments

    def predict(
        self,
        model: str,
        *,
        unit: str = "",
        entities: Mapping[str, str | int] | None = None,
        inputs: Mapping[str, Scalar] | None = None,
        context: Mapping[str, Scalar] | None = None,
        **more: Any,
    ) -> ab_router.Prediction:
        """One prediction; give its `prediction_id` with the feedback.

        `more` are further fields of a row, such as `time`, `return_inputs` and `request_id`, as the API has them.
        """
        row = {"unit": unit, "entities": entities or {}, "inputs": inputs or {}, "context": context or {}, **more}
        return self._transport.send(calls.predict(model, row, self._retries))

    def predict_batch(
        self, model: str, rows: Sequence[Mapping[str, Any]], *, request_id: str = ""
    ) -> list[ab_router.Prediction | Refusal]:
        """Predictions of several rows, in order; each row as `predict` takes it.

        A refused row has a Refusal in place of its prediction. If all rows are refused, the call raises RefusedError,
        whose errors name them.
        """
        answer = self._transport.send(calls.predict_batch(model, rows, request_id, self._retries))
        return calls.rows_of(answer, self.url)

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
        self.feedback_batch([calls.report(prediction_id, at, **values)])

    def feedback_batch(self, outcomes: Sequence[Mapping[str, Any]]) -> None:
        """Report on many predictions at once; each with `prediction_id`, one of `feedback`'s values, perhaps `time`."""
        self._transport.send(calls.give_feedback(outcomes))

    def results(self, experiment: str, as_of: float | None = None) -> feedback_service.Results:
        """The results of an experiment at this moment, or as they were kept at a time in seconds since 1970."""
        return self._transport.send(calls.get_results(experiment, as_of))

    def verdicts(self, experiment: str) -> list[feedback_service.VerdictEvent]:
        """The verdicts of an experiment and what was found after them, in order."""
        return self._transport.send(calls.list_verdicts(experiment)).verdicts

    def change(self, experiment: str, action: str, **fields: object) -> ExperimentRevision:
        """Change an experiment.

        Args:
            experiment: its name.
            action: `start`, `pause`, `ramp`, `stop`, `restart` or `promote`.
            fields: of the call's body, such as `reason` and `changed_by`; None and an empty text leave one out.

        Raises:
            ContenderError: there is no such action, or it takes no such field.
        """
        body = change_of(action, **fields)
        return self._transport.call("ab_router", ACTIONS[action], body=body, name=experiment)

    def _version(self, model: str, version: inference_service.ModelVersion | str) -> inference_service.ModelVersion:
        return version if isinstance(version, inference_service.ModelVersion) else self.version(model, version)

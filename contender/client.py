"""The client of people and applications: register versions, run experiments, predict, give feedback, read results."""

import os
import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self, TypeVar
from urllib.parse import quote, urlsplit

import httpx
import msgspec

from contender.answers import Prediction, Refusal, Results, read_row
from contender.bodies import encoded
from contender.contracts.ab_router import ExperimentRevision
from contender.contracts.inference_service import ModelVersion, VersionDetails
from contender.contracts.values import Missing, Outcome, Scalar
from contender.errors import ContenderError, RefusedError, RegistrationWarning, UnreachableError
from contender.experiments import conflict, differences

if TYPE_CHECKING:
    from contender.registration import RegisteredVersion

DEFAULT_URL = "http://127.0.0.1:8400"
_PORTS = {"feature_service": 8401, "inference_service": 8402, "feedback_service": 8403}
_NEVER_NULL = ("count", "distinct_count")
_USUAL_METRICS = {"regression": "absolute_error"}
ShapeT = TypeVar("ShapeT")


class _Feature(msgspec.Struct):
    name: str
    kind: str = ""
    default: Scalar = None


class _View(msgspec.Struct):
    name: str
    label: str
    digest: str
    newest: bool
    features: list[_Feature]


class _Definitions(msgspec.Struct):
    views: list[_View]


class Client:
    """Talks to a running Contender.

    Args:
        url: the router; default: the variable CONTENDER_URL, else `http://127.0.0.1:8400`. The other services are on
            the same host, on ports 8401 to 8403, unless CONTENDER_<SERVICE>_URL or CONTENDER_<SERVICE>_PORT says
            otherwise.
        timeout_s: longest wait for an answer.
        transport: another way to send; for tests.

    Every call raises RefusedError when a service refuses, UnreachableError when it does not answer, and ContenderError
    when what it is given can't be sent. Scalars of numpy, and its arrays of one, are sent as the values they hold.

    Raises:
        ContenderError: a URL is none.
    """

    def __init__(
        self, url: str | None = None, *, timeout_s: float = 30.0, transport: httpx.BaseTransport | None = None
    ) -> None:
        self.url = _checked(url or os.environ.get("CONTENDER_URL") or DEFAULT_URL)
        self.inference_url = self._beside("inference_service")
        self.feature_url = self._beside("feature_service")
        self.feedback_url = self._beside("feedback_service")
        self._http = httpx.Client(timeout=timeout_s, transport=transport)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections."""
        self._http.close()

    def register(
        self, model: str, pipeline: Any, columns: Any, labels: Any = None, **options: Any
    ) -> "RegisteredVersion":
        """Export a fitted pipeline to ONNX, check that it answers as scikit-learn does, and register it.

        Args:
            model: the model's name; its first version becomes the champion.
            pipeline: a fitted scikit-learn pipeline, or a ready ONNX file: its path, bytes or ModelProto.
            columns: the rows it was fitted on, shape (rows, inputs): a frame of pandas or polars, or an array.
            labels: what it was fitted to, shape (rows,).
            options: `sources`, `defaults`, `description`, `tolerance`, `tolerance_reason`, `training_set`, as
                `contender.registration.export_pipeline` has them; for a ready file `task` and `classes`, as
                `contender.registration.export_file` has them. A training set fills the sources of its own columns.
                Sources are pinned to the feature versions of today, or to those of the training set, and the
                definitions' own defaults stand in where none is given.

        Returns:
            The version. Its `warnings`, which are shown as well, say what it does with rows that training had none of.

        Raises:
            ExportError: the pipeline can't be exported.
            ParityError: the exported model answers differently.
        """
        from contender import registration  # noqa: PLC0415 - needs the extra `notebook`, which applications do without

        recorded = options.get("training_set")
        meant = {} if recorded is None else _meant(recorded.manifest)
        sources = _served(recorded, columns) | dict(options.get("sources") or {})
        if sources:
            options |= self._pinned(sources, options.get("defaults") or {}, meant)
        export = registration.export_file if registration.is_file(pipeline) else registration.export_pipeline
        exported = export(pipeline, columns, labels, **options)
        try:
            registered = registration.register(self.inference_url, model, exported)
        except httpx.HTTPError as error:
            raise UnreachableError(f"{self.inference_url} does not answer: {error}") from error
        for message in registered.warnings:
            warnings.warn(f"{model}: {message}", RegistrationWarning, stacklevel=2)
        return registered

    def versions(self) -> list[ModelVersion]:
        """Every version of every model, oldest first."""
        return self._call(dict[str, list[ModelVersion]], "GET", f"{self.inference_url}/v1/models")["versions"]

    def version(self, model: str, version: str) -> VersionDetails:
        """A version with its manifest; `champion` as its name stands for the champion."""
        path = f"{self.inference_url}/v1/models/{_segment(model)}/versions/{_segment(version)}"
        return self._call(VersionDetails, "GET", path)

    def promote(self, model: str, version: ModelVersion | str) -> None:
        """Make a version the one that answers outside of experiments."""
        path = f"{self.inference_url}/v1/models/{_segment(model)}/aliases/champion"
        self._call(dict[str, Any], "PUT", path, {"version": _name(version)})

    def experiment(
        self,
        model: str,
        *,
        challenger: ModelVersion | str,
        champion: ModelVersion | str = "champion",
        share: float = 0.5,
        metric: str | None = None,
        name: str | None = None,
        window_s: float = 86_400.0,
        missing: Missing = "excluded",
        **more: Any,
    ) -> "Experiment":
        """The experiment with one challenger: the one that runs with this configuration, else a new draft.

        Nobody is assigned until it is started. A script that declares an experiment and starts it may run twice: the
        second time it goes on with the experiment of the first, or with its draft.

        Args:
            model: the model whose units are split.
            challenger: the version in question.
            champion: the version it is compared with; default: the model's champion.
            share: the challenger's share of the units.
            metric: what decides; default: log loss, for a regression the absolute error.
            name: the experiment's name; default: the model's with the time.
            window_s: how long after its prediction an outcome may come and count.
            missing: what a label that has not come by then means.
            more: `alpha`, `tuning_n`, `coverage`, `fallback_value`, as the API has them.

        Raises:
            ContenderError: an experiment with another configuration runs on the model; the message says what differs
                and how to stop it.
        """
        versions = {"champion": self._version(model, champion), "challenger": self._version(model, challenger)}
        shares = {"champion": 1 - share, "challenger": share}
        body = {
            "name": name or f"{model}-{time.strftime('%Y%m%d-%H%M%S')}",
            "model": model,
            "variants": [
                {"name": role, "version": version.version, "weight": shares[role]} for role, version in versions.items()
            ],
            "champion": "champion",
            "metric": metric or _USUAL_METRICS.get(versions["challenger"].task, "log_loss"),
            "window_s": window_s,
            "missing": missing,
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
        """Declare any experiment, given as `POST /v1/experiments` takes it."""
        revision = self._call(ExperimentRevision, "POST", f"{self.url}/v1/experiments", body)
        return Experiment(self, revision.name)

    def experiments(self) -> list[ExperimentRevision]:
        """Every experiment as it stands, oldest first."""
        return self._call(dict[str, list[ExperimentRevision]], "GET", f"{self.url}/v1/experiments")["experiments"]

    def revision(self, experiment: str) -> ExperimentRevision:
        """An experiment as it stands."""
        return self._call(ExperimentRevision, "GET", f"{self.url}/v1/experiments/{_segment(experiment)}")

    def predict(
        self,
        model: str,
        *,
        unit: str,
        entities: Mapping[str, str | int] | None = None,
        inputs: Mapping[str, Scalar] | None = None,
        context: Mapping[str, Scalar] | None = None,
    ) -> Prediction:
        """One prediction; give its `prediction_id` with the feedback."""
        row = {"unit": unit, "entities": entities or {}, "inputs": inputs or {}, "context": context or {}}
        return self._call(Prediction, "POST", f"{self._model(model)}/predict", row)

    def predict_batch(self, model: str, rows: Sequence[Mapping[str, Any]]) -> list[Prediction | Refusal]:
        """Predictions of several rows, in order; each row as `predict` takes it.

        A row that the model can't score as it is has a Refusal in place of its prediction. Where that holds for all of
        them, the call raises RefusedError, whose errors name the rows.
        """
        path = f"{self._model(model)}/predict/batch"
        answers = self._call(dict[str, list[msgspec.Raw]], "POST", path, {"rows": list(rows)})["predictions"]
        return [_decoded(partial(read_row, answer), path) for answer in answers]

    def feedback(self, prediction_id: str, outcome: Outcome, *, at: float | None = None) -> None:
        """Tell what came true; safe on disk when this returns. `at` is when, in seconds since 1970; default now."""
        self.feedback_batch([{"prediction_id": prediction_id, "outcome": outcome, "time": at}])

    def feedback_batch(self, outcomes: Sequence[Mapping[str, Any]]) -> None:
        """Tell many outcomes at once, each with `prediction_id`, `outcome` and perhaps `time`."""
        self._call(dict[str, Any], "POST", f"{self.feedback_url}/v1/feedback", {"feedback": list(outcomes)})

    def results(self, experiment: str) -> Results:
        """What is known of an experiment at this moment."""
        path = f"{self.feedback_url}/v1/experiments/{_segment(experiment)}/results"
        return self._call(Results, "GET", path)

    def change(self, experiment: str, action: str) -> ExperimentRevision:
        """Start or stop an experiment."""
        path = f"{self.url}/v1/experiments/{_segment(experiment)}/{action}"
        return self._call(ExperimentRevision, "POST", path)

    def _model(self, model: str) -> str:
        return f"{self.url}/v1/models/{_segment(model)}"

    def _version(self, model: str, version: ModelVersion | str) -> ModelVersion:
        if isinstance(version, ModelVersion):
            return version
        return self.version(model, version)

    def _pinned(
        self, sources: Mapping[str, str], defaults: Mapping[str, Any], meant: Mapping[str, str]
    ) -> dict[str, Any]:
        """Sources with the versions that were trained on, and the definitions' own defaults under the given ones.

        Args:
            sources: `view:feature` by column; without a training set a view is what the service says today.
            defaults: by column.
            meant: what a training set's views meant, as digests by `view:feature`.
        """
        views = self._call(_Definitions, "GET", f"{self.feature_url}/v1/definitions").views
        labels = {view.label: view for view in views} | {view.name: view for view in views if view.newest}
        meanings = {(view.name, view.digest): view for view in views}
        pinned, own, always = {}, {}, []
        for column, reference in sources.items():
            label, _, name = reference.partition(":")
            view = labels.get(label)
            if digest := meant.get(reference):
                view = meanings.get((label.partition("@")[0], digest))
                if view is None:
                    raise ContenderError(
                        f"column {column}: the training set has {reference} with another meaning than any that the "
                        "feature service knows; run `contender features apply` there, or build the training set again"
                    )
            feature = next((one for one in view.features if one.name == name), None) if view else None
            if view is None or feature is None:
                raise ContenderError(f"column {column}: there is no feature {reference}")
            pinned[column] = f"{view.label}:{name}"
            if feature.default is not None:
                own[column] = feature.default
            if feature.kind in _NEVER_NULL:
                always.append(column)
        return {"sources": pinned, "defaults": own | dict(defaults), "never_null": always}

    def _beside(self, service: str) -> str:
        variable = f"CONTENDER_{service.upper()}"
        if given := os.environ.get(f"{variable}_URL"):
            return _checked(given)
        router = urlsplit(self.url)
        host = f"[{router.hostname}]" if ":" in (router.hostname or "") else router.hostname
        return _checked(f"{router.scheme}://{host}:{os.environ.get(f'{variable}_PORT', _PORTS[service])}")

    def _call(self, shape: type[ShapeT], method: str, url: str, body: object = None) -> ShapeT:
        content = None if body is None else encoded(body)
        try:
            answer = self._http.request(method, url, content=content, headers={"content-type": "application/json"})
        except httpx.HTTPError as error:
            raise UnreachableError(f"{url} does not answer: {error}") from error
        if answer.is_error:
            raise RefusedError.of(answer)
        return _decoded(lambda: msgspec.json.decode(answer.content, type=shape), url)


@dataclass(frozen=True, slots=True)
class Experiment:
    """An experiment by its name."""

    client: Client
    name: str

    def start(self) -> Self:
        """Assign units to its variants from now on; one that runs goes on."""
        try:
            self.client.change(self.name, "start")
        except RefusedError as error:
            if error.status != httpx.codes.CONFLICT or self.client.revision(self.name).status != "running":
                raise
        return self

    def stop(self) -> Self:
        """Assign nobody any more: the model's champion answers."""
        self.client.change(self.name, "stop")
        return self

    def results(self) -> Results:
        """What is known at this moment."""
        return self.client.results(self.name)


def _served(recorded: Any, columns: Any) -> dict[str, str]:
    """Where a training set's own columns among those of the rows are served from."""
    if recorded is None:
        return {}
    names = set(map(str, getattr(columns, "columns", [])))
    return {column: reference for column, reference in recorded.manifest["features"].items() if column in names}


def _meant(manifest: Mapping[str, Any]) -> dict[str, str]:
    """What a training set's views meant: digests by `view:feature`, and by `view@number:feature` in its own numbers."""
    found = {}
    for reference in manifest["features"].values():
        label, _, name = reference.partition(":")
        digest = manifest["definitions"][label]
        found[reference] = digest
        found.setdefault(f"{label.partition('@')[0]}:{name}", digest)
    return found


def _decoded(read: Callable[[], ShapeT], url: str) -> ShapeT:
    try:
        return read()
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise ContenderError(f"{url} is answered by something other than Contender: {error}") from error


def _checked(url: str) -> str:
    """The URL without a slash at its end."""
    try:
        httpx.URL(url)  # sees control characters, which urlsplit passes over, but not every bracket
        parsed = urlsplit(url)
        fits = parsed.scheme in ("http", "https") and parsed.hostname and parsed.port != 0
    except (ValueError, httpx.InvalidURL) as error:
        raise ContenderError(f"{url!a} is not a URL such as {DEFAULT_URL}: {error}") from error
    if not fits:
        raise ContenderError(f"{url!a} is not a URL such as {DEFAULT_URL}")
    return url.rstrip("/")


def _segment(name: str) -> str:
    """The name as a part of a path."""
    try:
        return quote(name, safe="")
    except UnicodeEncodeError as error:
        raise ContenderError(f"{name!a} is no name: it holds a character that UTF-8 has no bytes for") from error


def _name(version: ModelVersion | str) -> str:
    return version.version if isinstance(version, ModelVersion) else version

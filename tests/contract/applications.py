"""The four services as applications in this process: their stores are in memory, their neighbours fakes."""

from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec
from fastapi import FastAPI
from schemathesis import Case
from schemathesis.core import NOT_SET
from schemathesis.schemas import BaseSchema

from contender.contracts import feedback_service as contract
from contender.contracts.experiments import ExperimentRevision, NewExperiment, VariantAllocation
from contender.contracts.inference_service import Manifest, ModelVersion, PromotionRecord, VersionDetails
from contender.contracts.operation import JSON
from contender.features.catalogue import Catalogue
from services.ab_router import main as ab_router
from services.ab_router.deduplication import Deduplication
from services.ab_router.settings import RouterSettings
from services.feature_service import main as feature_service
from services.feature_service.definitions import definitions_for_tests
from services.feature_service.settings import FeatureSettings
from services.feature_service.store.memory import MemoryStore
from services.feature_service.store.registry import InMemoryRegistry
from services.feedback_service import main as feedback_service
from services.feedback_service.domain.memory import Memory
from services.feedback_service.experiments import InMemoryExperiments
from services.feedback_service.handlers import ReadResults, SubmitFeedback
from services.feedback_service.settings import FeedbackSettings
from services.feedback_service.store import InMemorySnapshots
from services.feedback_service.verdict_store import InMemoryVerdictStore, KeptMemory, Vintage
from services.inference_service import main as inference_service
from services.inference_service.domain.cost import TrialRecord
from services.inference_service.settings import InferenceSettings
from services.inference_service.store import InMemoryVersionStore
from shared.clock import FixedClock
from shared.journal import Journal
from tests.unit.ab_router import conftest as fakes
from tests.unit.inference_service.graphs import small

CLOCK = FixedClock(1_700_000_000.0)
VERDICT_AT = 1_699_990_000.0
JOURNAL_BYTES = 256 * 1024**2


@dataclass(frozen=True)
class Call:
    """A call that is answered, by its operation's id."""

    operation: str
    parameters: Mapping[str, str] = field(default_factory=dict)
    body: Any = NOT_SET
    query: Mapping[str, str] = field(default_factory=dict)

    def case(self, schema: BaseSchema) -> Case:
        return schema.find_operation_by_id(self.operation).Case(
            path_parameters=dict(self.parameters),
            query=dict(self.query),
            body=self.body,
            media_type=None if self.body is NOT_SET else JSON,
        )


@dataclass(frozen=True)
class Application:
    """A service.

    Attributes:
        open: makes it with its parts, whose files lie in a folder.
        known: names for the path's parameters that stand for something.
        calls: some that are answered, to be made in this order.
    """

    open: Callable[[Path], AbstractAsyncContextManager[FastAPI]]
    known: Mapping[str, str] = field(default_factory=dict)
    calls: tuple[Call, ...] = ()


@dataclass(frozen=True)
class EmptyLog:
    """The topic entity-events without a record."""

    partitions: int

    async def ends(self) -> dict[int, int]:
        return dict.fromkeys(range(self.partitions), 0)

    async def read(self, *_: object) -> AsyncIterator[Any]:
        return
        yield


@asynccontextmanager
async def open_router(folder: Path) -> AsyncIterator[FastAPI]:
    """The router with an experiment that runs."""
    settings = RouterSettings(data=folder, row_limit=5, text_limit=50, refresh_s=600, reread_s=0)
    parts_of = fakes._router
    with _journal(folder) as journal:
        async with parts_of(settings, journal, fakes.FakeFeatures(), fakes.FakeInference()) as parts:
            arms = [VariantAllocation("plain", "plain", 0.5), VariantAllocation("streaming", "streaming", 0.5)]
            await parts.experiments.create(NewExperiment(name="e", model="late", variants=arms))
            await parts.experiments.start("e")
            state = ab_router.State(
                settings=settings,
                predict=parts.predict,
                experiments=parts.experiments,
                readiness=parts.readiness,
                catalog=parts.catalog,
                journal=journal,
                deduplication=Deduplication(parts.answers, settings),
            )
            yield ab_router.create_app(settings, _giving(state))


class AppliedStore(MemoryStore):
    """A store whose frames are all applied: nobody has to wait."""

    async def is_applied(self, frame_id: str) -> bool:
        return bool(frame_id)


@asynccontextmanager
async def open_feature_service(folder: Path) -> AsyncIterator[FastAPI]:
    """The feature service with the definitions of the flights."""
    settings, store = FeatureSettings(data=folder, event_limit=10), AppliedStore()
    definitions = definitions_for_tests(Catalogue.load("examples.flights.features"), store, InMemoryRegistry())
    with _journal(folder) as journal:
        state = feature_service.state_of(settings, definitions, store, journal, CLOCK)
        state["consistency"].log = _giving(EmptyLog(settings.partitions))
        yield feature_service.create_app(_giving(state))


@asynccontextmanager
async def open_inference_service(folder: Path) -> AsyncIterator[FastAPI]:
    """The inference service with a version of the model m, which hands a number back."""
    settings, export = InferenceSettings(data=folder, row_limit=5), small()
    state = inference_service.state_of(settings, InMemoryVersionStore(), CLOCK)
    models = state["models"]
    manifest = msgspec.convert(export.manifest, Manifest)
    version = ModelVersion(
        model="m", version=export.version, task=manifest.task, inputs=manifest.inputs, registered_at=CLOCK.now()
    )
    models.files.write(export.version, export.onnx)
    models.files.write_record("m", export.version, TrialRecord(bounded=True, opening_ms=1.0, row_ms=0.01))
    models.files.write_upload("m", export.version, export.onnx, msgspec.json.encode(export.sample))
    await models.store.add(VersionDetails.of(version, export.manifest))
    await models.store.promote(
        PromotionRecord(version=export.version, model="m", number=1, at=CLOCK.now(), replaced=export.version)
    )
    yield inference_service.create_app(settings, _giving(state))
    await models.runtime.close()


@asynccontextmanager
async def open_feedback_service(folder: Path) -> AsyncIterator[FastAPI]:
    """The feedback service with an experiment that has a verdict, and no feedback."""
    settings, snapshots = FeedbackSettings(data=folder, feedback_rows_limit=5), InMemorySnapshots()
    experiments, verdicts = InMemoryExperiments(), InMemoryVerdictStore()
    arms = [VariantAllocation("champion", "v1", 0.5), VariantAllocation("challenger", "v2", 0.5)]
    experiments.put(
        ExperimentRevision(
            name="churn-2",
            model="churn",
            revision=2,
            epoch=1,
            status="running",
            seed="s",
            champion="champion",
            variants=arms,
            metric="log_loss",
            window_s=60.0,
            changed_at=VERDICT_AT,
        )
    )
    (event,) = msgspec.convert(contract.LIST_VERDICTS.answer_example, contract.VerdictEvents).verdicts
    vintage = Vintage(VERDICT_AT, msgspec.json.encode(contract.GET_RESULTS.answer_example))
    await verdicts.write("churn-2", KeptMemory(), Memory(events=[event]), vintage)
    with _journal(folder) as journal:
        state = feedback_service.State(
            settings=settings,
            submit_feedback=SubmitFeedback(journal, CLOCK, settings.partitions, settings.feedback_rows_limit),
            read_results=ReadResults(snapshots, experiments, CLOCK, verdicts),
            snapshots=snapshots,
            journal=journal,
        )
        yield feedback_service.create_app(settings, _giving(state))


ROW = {"unit": "u-17", "entities": {"origin": "EWR"}, "inputs": {"distance": 500.0}, "return_inputs": True}
TENSOR = {"name": "x", "datatype": "FP64", "shape": [2], "data": [1.5, 2.5]}
ARMS = [{"name": "plain", "version": "plain", "weight": 0.5}, {"name": "other", "version": "streaming", "weight": 0.5}]
DEPARTURE = {"carrier": "UA", "origin": "EWR", "tail_number": "N1", "dep_delay": 12.5}
EVENT = {"source": "departures", "time": 1_699_999_000.0, "values": DEPARTURE}
TABLE = {**{name: [value] for name, value in DEPARTURE.items()}, "event_timestamp": [1_699_999_000.0]}
QUESTION = {"features": ["origin_delays:count_1h"], "entities": {"origin": ["EWR"]}}
APPLICATIONS = {
    "ab_router": Application(
        open_router,
        {"model": "late", "name": "e", "slug": "not-found", "key": "e"},
        (
            Call("predict", {"model": "late"}, ROW),
            Call("predict_batch", {"model": "late"}, {"rows": [ROW, ROW | {"inputs": {}}]}),
            Call("create_experiment", body={"name": "f", "model": "late", "variants": ARMS}),
            Call("list_experiments"),
            Call("show_experiment", {"name": "f"}, query={"revision": "1"}),
            Call("revise_experiment", {"name": "f"}, {"name": "f", "model": "late", "variants": ARMS, "owner": "ann"}),
            Call("show_readiness", {"name": "f"}),
            Call("evaluate_flag", {"key": "e"}, {"context": {"targetingKey": "u-17"}}),
            Call("evaluate_flags", body={"context": {"targetingKey": "u-17"}}),
            Call("pause_experiment", {"name": "e"}),
            Call("start_experiment", {"name": "e"}),
            Call("ramp_experiment", {"name": "e"}, {"coverage": 0.5}),
            Call("promote_challenger", {"name": "e"}, {"override": "a test"}),
            Call("restart_experiment", {"name": "e"}, {"name": "g"}),
            Call("show_history", {"name": "e"}),
            Call("start_experiment", {"name": "f"}),
            Call("stop_experiment", {"name": "f"}, {"reason": "enough seen"}),
            Call("start_experiment", {"name": "g"}),
            Call("stop_experiments", {"model": "late"}, {"reason": "an incident"}),
            Call("readyz"),
            Call("describe_problem", {"slug": "not-found"}),
        ),
    ),
    "feature_service": Application(
        open_feature_service,
        {"slug": "unknown-source"},
        (
            Call("add_events", body={"events": [EVENT]}),
            Call("push", body={"push_source_name": "departures", "df": TABLE}),
            Call("write_to_online_store", body={"feature_view_name": "departures", "df": TABLE}),
            Call("get_frame", {"frame_id": "f"}),
            Call("get_online_features", body=QUESTION),
            Call("get_online_features", body=QUESTION | {"include_feature_view_version_metadata": True}),
            Call("get_definitions"),
            Call("get_status"),
            Call("readyz"),
            Call("describe_problem", {"slug": "unknown-source"}),
        ),
    ),
    "inference_service": Application(
        open_inference_service,
        {"model": "m", "version": "champion", "slug": "unknown-model"},
        (
            Call("list_models"),
            Call("show_model", {"model": "m"}),
            Call("show_version", {"model": "m", "version": "champion"}),
            Call("predict_rows", {"model": "m", "version": "champion"}, {"inputs": {"x": [1.5, None]}}),
            Call("promote_version", {"model": "m"}, {"version": small().version}),
            Call("list_promotions", {"model": "m"}),
            Call("roll_back", {"model": "m"}, {"reason": "complaints"}),
            Call("download_file", {"model": "m", "version": "champion"}),
            Call("show_sample", {"model": "m", "version": "champion"}),
            Call("server_metadata"),
            Call("server_live"),
            Call("server_ready"),
            Call("model_ready", {"model": "m"}),
            Call("model_metadata", {"model": "m"}),
            Call("version_metadata", {"model": "m", "version": small().version}),
            Call("infer", {"model": "m"}, {"inputs": [TENSOR]}),
            Call("version_infer", {"model": "m", "version": "champion"}, {"inputs": [TENSOR], "id": "17"}),
        ),
    ),
    "feedback_service": Application(
        open_feedback_service,
        {"name": "churn-2"},
        (
            Call("list_experiments"),
            Call("get_results", {"name": "churn-2"}),
            Call("get_results", {"name": "churn-2"}, query={"as_of": str(VERDICT_AT)}),
            Call("list_verdicts", {"name": "churn-2"}),
        ),
    ),
}


@contextmanager
def _journal(folder: Path) -> Iterator[Journal]:
    journal = Journal.open(folder / "journal", limit_bytes=JOURNAL_BYTES)
    yield journal
    journal.close()


def _giving(state: Any) -> Callable[..., AbstractAsyncContextManager[Any]]:
    """Resources that are open already."""

    @asynccontextmanager
    async def resources(*_: object) -> AsyncIterator[Any]:
        yield state

    return resources

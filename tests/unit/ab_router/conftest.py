"""A router whose other services are fakes: what it asks of them is noted, and they fail when told to."""

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import msgspec
import pytest

from contender.contracts.ab_router import PredictionRow
from contender.contracts.feedback_service import PLAN_EXPERIMENT, Plan, PlanRequest
from contender.contracts.inference_service import InputColumn, ModelVersion, Promotion, RowFault, ScoredRows
from contender.contracts.problems import FieldError
from contender.contracts.values import Scalar
from services.ab_router.catalog import Catalog
from services.ab_router.clients import CallError, QuestionRefusedError, ServedFeatures, ViewInputs
from services.ab_router.deduplication import Deduplication
from services.ab_router.domain.assignment import InForce
from services.ab_router.exploration import Exploration
from services.ab_router.handlers.experiments import Experiments
from services.ab_router.handlers.predictions import Predict
from services.ab_router.handlers.readiness import Readiness
from services.ab_router.main import State, create_app
from services.ab_router.plans import NoPlanError
from services.ab_router.scoring import Scorer
from services.ab_router.settings import RouterSettings
from services.ab_router.shadows import Shadows
from services.ab_router.sticky import StickyUnits, open_sticky_units
from services.ab_router.store import InMemoryExperimentStore
from services.ab_router.stored_answers import AnswerStoreError, InMemoryAnswerStore
from services.ab_router.stored_assignments import AssignmentStore, InMemoryAssignments
from services.ab_router.stored_traffic import InMemoryTraffic
from services.ab_router.traffic import Traffic
from shared.clock import FixedClock
from shared.events import PredictionBlock, PredictionFrame, joined_frames
from shared.ids import PredictionId
from shared.journal import Journal, JournalRecord, Position
from shared.testing import client_for
from shared.topics import PREDICTIONS

NOW = 1_700_000_000.0
DISTANCE = InputColumn("distance", "float")
CARRIER = InputColumn("carrier", "string", required=False, default="UA")
MEAN_DELAY = InputColumn("mean_delay", "float", source="origin_delays:mean_delay", default=7.5, required=False)
SEATS = InputColumn("seats", "integer")
FAULT = RowFault(0, 422, "inputs.distance", "is unlike all that the model knows")


def _version(name: str, inputs: list[InputColumn], *, champion: bool = False) -> ModelVersion:
    return ModelVersion(
        model="late",
        version=name,
        task="binary",
        classes=["on time", "late"],
        inputs=inputs,
        registered_at=1.0,
        champion=champion,
    )


PLAIN = _version("plain", [DISTANCE, CARRIER], champion=True)
STREAMING = _version("streaming", [DISTANCE, MEAN_DELAY])
DELAY = ModelVersion(model="delay", version="linear", task="regression", inputs=[SEATS], registered_at=2.0)


@dataclass
class FakeFeatures:
    """Answers 30.0 for every feature; `missing` references are left out, others have the value and status set for them.

    `invalid` origins have the status INVALID, and a question that holds a `refused` one is refused whole.
    """

    views: dict[str, ViewInputs] = field(default_factory=lambda: {"origin_delays": ViewInputs(["origin"])})
    missing: set[str] = field(default_factory=set)
    nulls: dict[str, str] = field(default_factory=dict)
    invalid: set[str] = field(default_factory=set)
    refused: set[str] = field(default_factory=set)
    refusal: tuple[int, str] = (422, "entities.origin[0]")
    down: bool = False
    asked: list[tuple[list[str], dict[str, list[Scalar]], list[float]]] = field(default_factory=list)
    defining: asyncio.Event = field(default_factory=asyncio.Event)

    def __post_init__(self) -> None:
        self.defining.set()

    async def view_inputs(self) -> dict[str, ViewInputs]:
        await self.defining.wait()
        if self.down:
            raise CallError("feature_service: down")
        return self.views

    async def get(
        self, references: Sequence[str], entities: Mapping[str, list[Scalar]], times: list[float]
    ) -> ServedFeatures:
        self.asked.append((list(references), dict(entities), times))
        if self.down:
            raise CallError("feature_service: down")
        origins = entities.get("origin", [""] * len(times))
        if self.refused & set(origins):
            status, named = self.refusal
            raise QuestionRefusedError("secret words of the feature service", status, [FieldError(named, "is odd")])
        served = [reference for reference in references if reference not in self.missing]
        statuses = {
            reference: [
                "INVALID" if origin in self.invalid else self.nulls.get(reference, "PRESENT") for origin in origins
            ]
            for reference in served
        }
        values = {
            reference: [30.0 if status == "PRESENT" else None for status in statuses[reference]] for reference in served
        }
        return ServedFeatures(values, statuses)


class FakeAnswers(InMemoryAnswerStore):
    """Fails as long as `failure` is set."""

    failure: type[AnswerStoreError] | None = None
    asked = 0

    def _check(self) -> None:
        self.asked += 1
        if self.failure:
            raise self.failure("away")

    async def claim(self, key: bytes, marker: bytes, expires_s: float) -> bytes | None:
        self._check()
        return await super().claim(key, marker, expires_s)

    async def replace(self, key: bytes, marker: bytes, entry: bytes, expires_s: float) -> bool:
        self._check()
        return await super().replace(key, marker, entry, expires_s)


@dataclass
class FakeInference:
    """Scores rows 0.2 by `plain`, 0.7 by `streaming`, and a number of seats by itself.

    Versions in `failing` do not answer. A version in `refusing` refuses rows whose distance or seats are listed for it:
    each on its own, or, when `whole` has a status, the whole question with that status.
    """

    registered: list[ModelVersion] = field(default_factory=lambda: [PLAIN, STREAMING, DELAY])
    down: bool = False
    failing: set[str] = field(default_factory=set)
    failure: type[CallError] = CallError
    refusing: dict[str, set[float]] = field(default_factory=dict)
    fault: RowFault = FAULT
    whole: int = 0
    row_limit: int = 10**6
    silent_s: float = 0.0
    listed: int = 0
    asked: list[tuple[str, dict[str, list[Scalar]]]] = field(default_factory=list)
    answering: asyncio.Event = field(default_factory=asyncio.Event)
    hanging: set[str] = field(default_factory=set)
    reached: asyncio.Event = field(default_factory=asyncio.Event)
    listing: asyncio.Event = field(default_factory=asyncio.Event)
    promoted: list[Promotion] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.answering.set()
        self.listing.set()

    async def versions(self) -> list[ModelVersion]:
        self.listed += 1
        registered = list(self.registered)
        await self.listing.wait()
        if self.down:
            raise CallError("inference_service: down")
        return registered

    async def predict(self, model: str, version: str, inputs: Mapping[str, list[Scalar]]) -> ScoredRows:
        self.asked.append((version, dict(inputs)))
        self.reached.set()
        if not self.hanging or version in self.hanging:
            await self.answering.wait()
        if version in self.failing:
            raise self.failure(f"inference_service: {version} fails")
        values = next(iter(inputs.values()))
        refused = [row for row, value in enumerate(values) if value in self.refusing.get(version, ())]
        if len(values) > self.row_limit:
            raise QuestionRefusedError("secret words of the inference service", 413, [])
        if refused and self.whole:
            named = [FieldError(f"{self.fault.field}[{refused[0]}]", "secret words of a library")]
            raise QuestionRefusedError("secret words of the inference service", self.whole, named)
        faults = [msgspec.structs.replace(self.fault, row=row) for row in refused]
        scores, labels = self._scores(model, version, values)
        for row in refused:
            scores[row] = labels[row] = None
        return ScoredRows(scores, labels, faults)

    async def promote(self, model: str, promotion: Promotion) -> None:
        if self.down:
            raise CallError("inference_service: down")
        if not any((known.model, known.version) == (model, promotion.version) for known in self.registered):
            raise QuestionRefusedError("secret words of the inference service", 404, [])
        self.promoted.append(promotion)
        self.registered = [
            msgspec.structs.replace(known, champion=known.version == promotion.version)
            if known.model == model
            else known
            for known in self.registered
        ]

    def _scores(self, model: str, version: str, values: list[Scalar]) -> tuple[list[float | None], list[Scalar]]:
        if model == "delay":
            return [float(value or 0) for value in values], [float(value or 0) for value in values]
        late = version != "plain"
        return [0.7 if late else 0.2] * len(values), ["late" if late else "on time"] * len(values)


@dataclass
class FakePlans:
    """Plans the example of the contract; `away` is why there is no plan."""

    planned: Plan = field(default_factory=lambda: msgspec.convert(PLAN_EXPERIMENT.answer_example, Plan))
    away: str = ""
    asked: list[PlanRequest] = field(default_factory=list)

    async def plan(self, request: PlanRequest) -> Plan:
        self.asked.append(request)
        if self.away:
            raise NoPlanError(self.away)
        return self.planned


@dataclass
class Draw:
    """Draws the same number again and again, unless a test sets another source."""

    number: float = 0.0
    source: Callable[[], float] | None = None

    def __call__(self) -> float:
        return self.source() if self.source else self.number


@dataclass
class Router:
    """The router's parts, and what its journal holds. `draw` is what explores and samples rows: all, by default."""

    settings: RouterSettings
    clock: FixedClock
    features: FakeFeatures
    inference: FakeInference
    catalog: Catalog
    store: InMemoryExperimentStore
    experiments: Experiments
    journal: Journal
    predict: Predict
    draw: Draw
    assignments: InMemoryAssignments
    sticky: StickyUnits
    traffic: Traffic
    kept_traffic: InMemoryTraffic
    plans: FakePlans
    readiness: Readiness
    answers: FakeAnswers = field(default_factory=FakeAnswers)

    def records(self) -> list[JournalRecord]:
        return [record for record, _ in self.journal.read(Position(0, 0), 10**8)]

    def frames(self) -> list[tuple[str, int, PredictionFrame]]:
        """Frame id, shard and frame of every record of predictions, each with all of its parts."""
        parts: dict[tuple[str, int], list[bytes]] = {}
        for record in self.records():
            if record.topic == PREDICTIONS.name:
                parts.setdefault((record.key.decode(), record.partition), []).append(record.value)
        return [(*key, PREDICTIONS.decode(joined_frames(values))) for key, values in parts.items()]

    def kept(self, prediction_id: str) -> tuple[PredictionBlock, int]:
        """The block that an id leads to, and the row in it."""
        wanted = PredictionId.parse(prediction_id)
        ((_, shard, frame),) = [entry for entry in self.frames() if entry[0] == wanted.frame_id]
        assert shard == wanted.shard
        row = wanted.row
        for block in frame.blocks:
            if row < len(block):
                return block, row
            row -= len(block)
        raise AssertionError(f"{prediction_id} is beyond its frame")

    def unit_of(self, variant: str | None) -> str:
        """A unit that experiment `e`, whose seed is random, assigns to the variant."""
        in_force = InForce([self.experiments.find("e")])
        assigned = ((unit, in_force.assign(PredictionRow(unit)).variant) for unit in map("user-{}".format, range(1000)))
        return next(
            unit for unit, variant_assigned in assigned if (variant_assigned and variant_assigned.name) == variant
        )


OpenRouter = Callable[..., AsyncIterator[Router]]


@asynccontextmanager
async def _router(
    settings: RouterSettings,
    journal: Journal,
    features: FakeFeatures,
    inference: FakeInference,
    first_assignments: AssignmentStore | None = None,
) -> AsyncIterator[Router]:
    clock, store, assignments = FixedClock(NOW), InMemoryExperimentStore(), InMemoryAssignments()
    path = settings.data / "catalog.json"
    async with (
        Catalog(inference, features, path, settings.refresh_s, settings.reread_s) as catalog,
        open_sticky_units(first_assignments or assignments, settings) as sticky,
    ):
        experiments = Experiments(store, journal, catalog, clock)
        await experiments.open()
        draw = Draw()
        kept_traffic, plans = InMemoryTraffic(), FakePlans()
        traffic = Traffic(kept_traffic, clock)
        scorer, shadow_scorer = (
            Scorer(features, inference, catalog, settings, note_features=traffic.note_features, clock=clock.now)
            for _ in range(2)
        )
        predict = Predict(
            catalog=catalog,
            experiments=experiments,
            sticky=sticky,
            scorer=scorer,
            exploration=Exploration(draw),
            shadows=Shadows(shadow_scorer, journal, clock, settings, note_latency=traffic.note_shadow, draw=draw),
            traffic=traffic,
            journal=journal,
            clock=clock,
            settings=settings,
        )
        async with predict:
            yield Router(
                settings,
                clock,
                features,
                inference,
                catalog,
                store,
                experiments,
                journal,
                predict,
                draw,
                assignments,
                sticky,
                traffic,
                kept_traffic,
                plans,
                Readiness(traffic, catalog, plans, settings.challenger_deadline_s),
            )


@pytest.fixture
def features() -> FakeFeatures:
    return FakeFeatures()


@pytest.fixture
def inference() -> FakeInference:
    return FakeInference()


@pytest.fixture
def settings(tmp_path: Path) -> RouterSettings:
    return RouterSettings(
        data=tmp_path, partitions=4, row_limit=5, text_limit=50, body_limit_bytes=2000, refresh_s=600, reread_s=0
    )


@pytest.fixture
def journal(tmp_path: Path):
    journal = Journal.open(tmp_path / "journal", limit_bytes=1024**2)
    yield journal
    journal.close()


@pytest.fixture
async def router(settings, journal, features, inference) -> AsyncIterator[Router]:
    async with _router(settings, journal, features, inference) as router:
        yield router


@pytest.fixture
def open_router() -> OpenRouter:
    """For a test that makes one of the parts itself."""
    return _router


@asynccontextmanager
async def _client_of(router: Router) -> AsyncIterator[httpx.AsyncClient]:
    @asynccontextmanager
    async def resources(settings: RouterSettings) -> AsyncIterator[State]:
        yield State(
            settings=settings,
            predict=router.predict,
            experiments=router.experiments,
            readiness=router.readiness,
            catalog=router.catalog,
            journal=router.journal,
            deduplication=Deduplication(router.answers, router.settings),
        )

    async with client_for(create_app(router.settings, resources)) as client:
        yield client


@pytest.fixture
async def client(router) -> AsyncIterator[httpx.AsyncClient]:
    async with _client_of(router) as client:
        yield client


@pytest.fixture
def client_of() -> Callable[[Router], AbstractAsyncContextManager[httpx.AsyncClient]]:
    """For a test that opens a router itself."""
    return _client_of

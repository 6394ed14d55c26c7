"""A router whose other services are fakes: what it asks of them is noted, and they fail when told to."""

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from services.ab_router.catalog import Catalog
from services.ab_router.clients import CallError, Needs, Score, ServedFeatures
from services.ab_router.domain.experiments import assign
from services.ab_router.experiments import Experiments
from services.ab_router.predictions import Predict
from services.ab_router.scoring import Scorer
from services.ab_router.settings import RouterSettings
from services.ab_router.store import InMemoryExperimentStore
from shared.clock import FixedClock
from shared.events import InputColumn, ModelVersion, PredictionBlock, PredictionFrame, Scalar
from shared.ids import PredictionId
from shared.journal import Journal, JournalRecord, Position
from shared.topics import PREDICTIONS

NOW = 1_700_000_000.0
DISTANCE = InputColumn("distance", "float")
CARRIER = InputColumn("carrier", "string", required=False, default="UA")
MEAN_DELAY = InputColumn("mean_delay", "float", source="origin_delays:mean_delay", default=7.5, required=False)
SEATS = InputColumn("seats", "integer")


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
    """Answers 30.0 for every feature; `missing` references are left out, `nulls` are null."""

    views: dict[str, Needs] = field(default_factory=lambda: {"origin_delays": Needs(["origin"])})
    missing: set[str] = field(default_factory=set)
    nulls: set[str] = field(default_factory=set)
    down: bool = False
    asked: list[tuple[list[str], dict[str, list[Scalar]], list[float]]] = field(default_factory=list)

    async def needs(self) -> dict[str, Needs]:
        if self.down:
            raise CallError("feature_service: down")
        return self.views

    async def get(
        self, references: Sequence[str], entities: Mapping[str, list[Scalar]], times: list[float]
    ) -> ServedFeatures:
        self.asked.append((list(references), dict(entities), times))
        if self.down:
            raise CallError("feature_service: down")
        served = [one for one in references if one not in self.missing]
        return ServedFeatures(
            {one: [None if one in self.nulls else 30.0] * len(times) for one in served},
            {one: ["NULL_VALUE" if one in self.nulls else "PRESENT"] * len(times) for one in served},
        )


@dataclass
class FakeInference:
    """Scores rows 0.2 by `plain`, 0.7 by `streaming`, and a number of seats by itself."""

    registered: list[ModelVersion] = field(default_factory=lambda: [PLAIN, STREAMING, DELAY])
    down: bool = False
    failing: set[str] = field(default_factory=set)
    listed: int = 0
    asked: list[tuple[str, dict[str, list[Scalar]]]] = field(default_factory=list)
    answering: asyncio.Event = field(default_factory=asyncio.Event)
    reached: asyncio.Event = field(default_factory=asyncio.Event)

    def __post_init__(self) -> None:
        self.answering.set()

    async def versions(self) -> list[ModelVersion]:
        self.listed += 1
        if self.down:
            raise CallError("inference_service: down")
        return list(self.registered)

    async def predict(self, model: str, version: str, inputs: Mapping[str, list[Scalar]]) -> Score:
        self.asked.append((version, dict(inputs)))
        self.reached.set()
        await self.answering.wait()
        if version in self.failing:
            raise CallError(f"inference_service: {version} fails")
        if model == "delay":
            seats = [float(value) for value in inputs["seats"]]
            return Score(list(seats), list(seats))
        late = version != "plain"
        rows = len(inputs["distance"])
        return Score([0.7 if late else 0.2] * rows, ["late" if late else "on time"] * rows)


@dataclass
class Router:
    """The router's parts, and what its journal holds."""

    settings: RouterSettings
    clock: FixedClock
    features: FakeFeatures
    inference: FakeInference
    catalog: Catalog
    store: InMemoryExperimentStore
    experiments: Experiments
    journal: Journal
    predict: Predict

    def records(self) -> list[JournalRecord]:
        return [record for record, _ in self.journal.read(Position(0, 0), 10**8)]

    def frames(self) -> list[tuple[str, int, PredictionFrame]]:
        """Frame id, shard and frame of every record of predictions."""
        return [
            (record.key.decode(), record.partition, PREDICTIONS.decode(record.value))
            for record in self.records()
            if record.topic == PREDICTIONS.name
        ]

    def kept(self, prediction_id: str) -> tuple[PredictionBlock, int]:
        """The block that an id leads to, and the row in it."""
        wanted = PredictionId.parse(prediction_id)
        ((_, shard, frame),) = [one for one in self.frames() if one[0] == wanted.frame_id]
        assert shard == wanted.shard
        row = wanted.row
        for block in frame.blocks:
            if row < len(block):
                return block, row
            row -= len(block)
        raise AssertionError(f"{prediction_id} is beyond its frame")

    def unit_of(self, variant: str | None) -> str:
        """A unit that experiment `e`, whose seed is random, assigns to the variant."""
        experiment = self.experiments.find("e")
        found = ((unit, assign(experiment, unit)) for unit in map("user-{}".format, range(1000)))
        return next(unit for unit, one in found if (one and one.name) == variant)


OpenRouter = Callable[..., AsyncIterator[Router]]


@asynccontextmanager
async def _router(
    settings: RouterSettings, journal: Journal, features: FakeFeatures, inference: FakeInference
) -> AsyncIterator[Router]:
    clock, store = FixedClock(NOW), InMemoryExperimentStore()
    async with Catalog(inference, features, settings.data / "catalog.json", settings.refresh_s) as catalog:
        experiments = Experiments(store, journal, catalog, clock)
        predict = Predict(
            catalog=catalog,
            experiments=experiments,
            scorer=Scorer(features, inference, catalog),
            journal=journal,
            clock=clock,
            settings=settings,
        )
        async with predict.batcher:
            yield Router(settings, clock, features, inference, catalog, store, experiments, journal, predict)


@pytest.fixture
def features() -> FakeFeatures:
    return FakeFeatures()


@pytest.fixture
def inference() -> FakeInference:
    return FakeInference()


@pytest.fixture
def settings(tmp_path: Path) -> RouterSettings:
    return RouterSettings(data=tmp_path, partitions=4, row_limit=5, text_limit=50, body_limit_bytes=2000, refresh_s=600)


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

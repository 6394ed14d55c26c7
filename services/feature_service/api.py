"""HTTP of the feature service: turns requests into handler calls and their outcome into answers."""

import asyncio
from typing import TypedDict

from aiokafka.errors import KafkaError
from fastapi import APIRouter, Request, Response

from contender.features.errors import DefinitionError, TrainingSetError
from services.feature_service import feast
from services.feature_service.consistency import CheckRunningError, Consistency
from services.feature_service.contracts import EventsGiven, OnlineQuestion, OnlineWrite, Push, Retirement
from services.feature_service.definitions import Definitions, UnknownVersionError, VersionInUseError
from services.feature_service.errors import (
    CheckRunning,
    InvalidDefinitions,
    InvalidEvent,
    UnknownSource,
    UnknownVersion,
    VersionInUse,
)
from services.feature_service.handlers import Intake, RejectedEventError
from services.feature_service.history import HistoryChangedError
from services.feature_service.on_demand import Failures
from services.feature_service.online import Question, TooManyTilesError
from services.feature_service.settings import FeatureSettings
from services.feature_service.store.protocol import FeatureStore, StoreUnavailableError
from services.feature_service.telling import tell, tell_status
from shared.bodies import read_body
from shared.clock import Clock
from shared.errors import Conflict, InvalidField, TooLarge, Unavailable
from shared.events import EntityEvent
from shared.routes import json_response

_POLL_S = 0.02
_LONGEST_WAIT_S = 60.0


class State(TypedDict):
    """What the lifespan opens."""

    settings: FeatureSettings
    definitions: Definitions
    store: FeatureStore
    intake: Intake
    consistency: Consistency
    failures: Failures
    clock: Clock


router = APIRouter()
online = APIRouter()


@online.post("/get-online-features", tags=["feast"])
async def get_online_features(request: Request) -> Response:
    """The values of features now, or at each row's `event_timestamps`."""
    settings: FeatureSettings = request.state.settings
    question = await read_body(request, OnlineQuestion, settings.body_limit_bytes)
    current = request.state.definitions.current
    asked = feast.read_question(question, current.catalogue, request.state.clock.now(), settings)
    plan = Question(
        current,
        asked.features,
        question.entities,
        asked.times,
        settings.partitions,
        settings.read_limit_bytes,
        request.state.failures,
    )
    try:
        columns = await plan.answer(request.state.store)
    except TooManyTilesError as error:
        raise TooLarge(str(error)) from error
    except StoreUnavailableError as error:
        raise Unavailable(str(error)) from error
    return json_response(feast.answer(question, asked, columns))


@router.post("/v1/events", status_code=202, tags=["events"])
async def add_events(request: Request) -> Response:
    """Take events in; they are on disk when this answers, and reach the features within moments."""
    settings: FeatureSettings = request.state.settings
    given = await read_body(request, EventsGiven, settings.body_limit_bytes)
    frame_ids = await _accept(request, given.events, given.request_id)
    return json_response({"frame_ids": frame_ids, "accepted": len(given.events)}, 202)


@router.get("/v1/frames/{frame_id}", tags=["events"])
async def get_frame(request: Request, frame_id: str, wait_s: float = 0.0) -> Response:
    """Whether the events of a frame are in the features; waits up to `wait_s` seconds (at most 60) until they are."""
    if not 0 <= wait_s <= _LONGEST_WAIT_S:
        raise InvalidField.at("wait_s", f"is {wait_s}; expected 0 to {_LONGEST_WAIT_S:.0f} seconds")
    try:
        applied = await _applied(request.state.store, request.state.definitions, frame_id, wait_s)
    except StoreUnavailableError as error:
        raise Unavailable(str(error)) from error
    return json_response({"frame_id": frame_id, "applied": applied})


@router.get("/v1/definitions", tags=["features"])
async def get_definitions(request: Request) -> Response:
    """All definitions: entities, sources, views with their features, feature services."""
    definitions: Definitions = request.state.definitions
    return json_response(tell(definitions.current, definitions.partitions))


@router.post("/v1/definitions/apply", tags=["features"])
async def apply_definitions(request: Request) -> Response:
    """Read the definitions' module again; what has changed its meaning becomes a new version, and is filled."""
    definitions: Definitions = request.state.definitions
    try:
        added = await definitions.apply()
    except DefinitionError as error:
        raise InvalidDefinitions(str(error)) from error
    return json_response({"added": added})


@router.post("/v1/definitions/rebuild", status_code=202, tags=["features"])
async def rebuild_features(request: Request) -> Response:
    """Fill every ring anew, from histories as they are now and from the topic; the stream goes on."""
    definitions: Definitions = request.state.definitions
    try:
        generation = await definitions.rebuild()
    except DefinitionError as error:
        raise InvalidDefinitions(str(error)) from error
    return json_response({"generation": generation}, 202)


@router.post("/v1/definitions/retire", tags=["features"])
async def retire_versions(request: Request) -> Response:
    """Serve and feed versions no longer, for good, and free what they take."""
    definitions: Definitions = request.state.definitions
    given = await read_body(request, Retirement, request.state.settings.body_limit_bytes)
    try:
        await definitions.retire(given.versions)
    except UnknownVersionError as error:
        raise UnknownVersion(str(error)) from error
    except VersionInUseError as error:
        raise VersionInUse(str(error)) from error
    return json_response({"retired": given.versions})


@router.get("/v1/features/status", tags=["features"])
async def get_status(request: Request) -> Response:
    """How fresh and how full every version of every view is, over all workers."""
    try:
        return json_response(await tell_status(request.state.definitions, request.state.clock.now()))
    except StoreUnavailableError as error:
        raise Unavailable(str(error)) from error


@router.post("/v1/consistency", tags=["features"])
async def check_consistency(request: Request, sample: float | None = None) -> Response:
    """Compare what is served of sampled entities with what the topic and the sources' files say; one at a time."""
    settings: FeatureSettings = request.state.settings
    share = settings.consistency_sample if sample is None else sample
    if not 0 < share <= 1:
        raise InvalidField.at("sample", f"is {share}; expected a share above 0 and up to 1")
    try:
        reports = await request.state.consistency.check(share)
    except CheckRunningError as error:
        raise CheckRunning("another check of served values has not ended yet; ask again when it has") from error
    except (HistoryChangedError, TrainingSetError) as error:
        raise Conflict(str(error)) from error
    except (StoreUnavailableError, KafkaError, TimeoutError) as error:
        raise Unavailable(f"the check needs the store and the topic: {error!r}") from error
    return json_response({"sample": share, "features": reports})


@router.post("/push", tags=["feast"])
async def push(request: Request) -> Response:
    """Take the rows of a table in as events of a source."""
    settings: FeatureSettings = request.state.settings
    given = await read_body(request, Push, settings.body_limit_bytes)
    events = feast.read_push(given, request.state.definitions.current.catalogue)
    frame_ids = await _accept(request, events, "")
    return json_response({"frame_ids": frame_ids, "accepted": len(events)})


@router.post("/write-to-online-store", tags=["feast"])
async def write_to_online_store(request: Request) -> Response:
    """Take the rows that Feast's SDK writes in as events: of the source its view is named after."""
    settings: FeatureSettings = request.state.settings
    given = await read_body(request, OnlineWrite, settings.body_limit_bytes)
    events = feast.read_write(given, request.state.definitions.current.catalogue)
    # The SDK repeats a call whose answer it did not get, and a write sets rows: the same ones again count once.
    frame_ids = await _accept(request, events, "write-to-online-store")
    return json_response({"frame_ids": frame_ids, "accepted": len(events)})


async def _applied(store: FeatureStore, definitions: Definitions, frame_id: str, wait_s: float) -> bool:
    """Ask until the frame is applied or the time is over: another process merges it, so nothing here could tell."""
    loop = asyncio.get_running_loop()
    until = loop.time() + wait_s

    async def is_applied() -> bool:
        return definitions.is_complete and await store.is_applied(frame_id)

    applied = await is_applied()
    while not applied and (left_s := until - loop.time()) > 0:
        await asyncio.sleep(min(_POLL_S, left_s))
        applied = await is_applied()
    return applied


async def _accept(request: Request, events: list[EntityEvent], request_id: str) -> list[str]:
    settings: FeatureSettings = request.state.settings
    intake: Intake = request.state.intake
    if len(events) > settings.event_limit:
        raise TooLarge(f"events holds {len(events)} events; one call takes {settings.event_limit}")
    try:
        return await intake.accept(events, request_id)
    except RejectedEventError as error:
        kind = UnknownSource if error.fault.field == "source" else InvalidEvent
        raise kind.at(f"events[{error.row}].{error.fault.field}", error.fault.message) from error

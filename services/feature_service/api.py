"""HTTP of the feature service: turns requests into handler calls and their outcome into answers."""

import asyncio
from typing import TypedDict

from fastapi import APIRouter, Request, Response

from services.feature_service import feast
from services.feature_service.contracts import EventsGiven, OnlineQuestion, Push
from services.feature_service.errors import InvalidEvent, UnknownSource
from services.feature_service.handlers import Intake, OnlineFeatures, RejectedEventError
from services.feature_service.settings import FeatureSettings
from services.feature_service.store.protocol import FeatureStore, StoreUnavailableError
from shared.clock import Clock
from shared.events import EntityEvent
from shared.features.catalogue import Catalogue
from shared.http import json_response, read_body
from shared.problems import TooLarge, Unavailable, Unprocessable

_POLL_S = 0.02
_LONGEST_WAIT_S = 60.0


class State(TypedDict):
    """What the lifespan opens."""

    settings: FeatureSettings
    catalogue: Catalogue
    store: FeatureStore
    online: OnlineFeatures
    intake: Intake
    clock: Clock


router = APIRouter()


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
        raise Unprocessable.at("wait_s", f"is {wait_s}; expected 0 to {_LONGEST_WAIT_S:.0f} seconds")
    try:
        applied = await _applied(request.state.store, frame_id, wait_s)
    except StoreUnavailableError as error:
        raise Unavailable(str(error)) from error
    return json_response({"frame_id": frame_id, "applied": applied})


@router.get("/v1/definitions", tags=["features"])
async def get_definitions(request: Request) -> Response:
    """All definitions: entities, sources, views with their features, feature services."""
    return json_response(feast.definitions(request.state.catalogue))


@router.post("/get-online-features", tags=["feast"])
async def get_online_features(request: Request) -> Response:
    """The values of features now, or at each row's `event_timestamps`."""
    settings: FeatureSettings = request.state.settings
    question = await read_body(request, OnlineQuestion, settings.body_limit_bytes)
    online: OnlineFeatures = request.state.online
    asked = feast.read_question(question, online.catalogue, request.state.clock.now(), settings.row_limit)
    try:
        columns = await online.values(asked.features, question.entities, asked.times)
    except StoreUnavailableError as error:
        raise Unavailable(str(error)) from error
    return json_response(feast.answer(question, asked, columns))


@router.post("/push", tags=["feast"])
async def push(request: Request) -> Response:
    """Take the rows of a table in as events of a source."""
    settings: FeatureSettings = request.state.settings
    given = await read_body(request, Push, settings.body_limit_bytes)
    events = feast.read_push(given, request.state.catalogue)
    frame_ids = await _accept(request, events, "")
    return json_response({"frame_ids": frame_ids, "accepted": len(events)})


async def _applied(store: FeatureStore, frame_id: str, wait_s: float) -> bool:
    """Ask until the frame is applied or the time is over: another process merges it, so nothing here could tell."""
    loop = asyncio.get_running_loop()
    until = loop.time() + wait_s
    applied = await store.is_applied(frame_id)
    while not applied and (left_s := until - loop.time()) > 0:
        await asyncio.sleep(min(_POLL_S, left_s))
        applied = await store.is_applied(frame_id)
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

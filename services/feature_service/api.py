"""HTTP of the feature service."""

import asyncio
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TypedDict

from fastapi import Request

from contender.contracts import feature_service as contract
from contender.features import DefinitionError, TrainingSetError
from services.feature_service import feast
from services.feature_service.consistency import Consistency
from services.feature_service.definitions import Definitions
from services.feature_service.descriptions import describe
from services.feature_service.errors import InvalidDefinitionsError
from services.feature_service.handlers import Intake
from services.feature_service.on_demand import Failures
from services.feature_service.online import Question
from services.feature_service.settings import FeatureSettings
from services.feature_service.status import StatusReader
from services.feature_service.store import FeatureStore, RingReader
from shared.clock import Clock
from shared.errors import Conflict, TooLarge
from shared.routes import Routes

_POLL_S = 0.02


class State(TypedDict):
    """What the lifespan opens."""

    settings: FeatureSettings
    definitions: Definitions
    store: FeatureStore
    reader: RingReader
    intake: Intake
    consistency: Consistency
    status: StatusReader
    failures: Failures
    clock: Clock


routes = Routes()


@routes.serve(contract.GET_ONLINE_FEATURES)
async def get_online_features(request: Request, body: contract.OnlineFeaturesQuestion) -> contract.OnlineFeatures:
    settings: FeatureSettings = request.state.settings
    current = _definitions(request).current
    selected = feast.read_question(body, current.catalogue, request.state.clock.now(), settings)
    question = Question(
        current,
        selected.features,
        body.entities,
        selected.times,
        settings.partitions,
        settings.read_limit_bytes,
        request.state.failures,
    )
    return feast.answer(body, selected, await question.answer(request.state.reader))


@routes.serve(contract.ADD_EVENTS)
async def add_events(request: Request, body: contract.NewEvents) -> contract.EventsAccepted:
    return await _accept(request, body.events, body.request_id)


@routes.serve(contract.PUSH)
async def push(request: Request, body: contract.Push) -> contract.EventsAccepted:
    return await _accept(request, feast.read_push(body, _definitions(request).current.catalogue))


@routes.serve(contract.WRITE_TO_ONLINE_STORE)
async def write_to_online_store(request: Request, body: contract.OnlineWrite) -> contract.EventsAccepted:
    events = feast.read_write(body, _definitions(request).current.catalogue)
    # The SDK repeats a call whose answer it did not get; the same rows count once.
    return await _accept(request, events, "write-to-online-store")


@routes.serve(contract.GET_FRAME)
async def get_frame(request: Request, frame_id: str, query: contract.FrameQuery) -> contract.FrameStatus:
    store: FeatureStore = request.state.store
    return contract.FrameStatus(
        frame_id, await _wait_until_applied(_definitions(request), store, frame_id, query.wait_s)
    )


@routes.serve(contract.SHOW_DEFINITIONS)
async def get_definitions(request: Request) -> contract.DefinitionsDocument:
    definitions = _definitions(request)
    return describe(definitions.current, definitions.partitions)


@routes.serve(contract.APPLY_DEFINITIONS)
async def apply_definitions(request: Request) -> contract.AppliedDefinitions:
    with _library_errors():
        return contract.AppliedDefinitions(await _definitions(request).apply())


@routes.serve(contract.REBUILD_FEATURES)
async def rebuild_features(request: Request) -> contract.RebuildStarted:
    with _library_errors():
        return contract.RebuildStarted(await _definitions(request).rebuild())


@routes.serve(contract.RETIRE_VERSIONS)
async def retire_versions(request: Request, body: contract.Retirement) -> contract.RetiredVersions:
    await _definitions(request).retire(body.versions)
    return contract.RetiredVersions(body.versions)


@routes.serve(contract.SHOW_STATUS)
async def get_status(request: Request) -> contract.FeaturesStatus:
    status: StatusReader = request.state.status
    return await status.read()


@routes.serve(contract.CHECK_CONSISTENCY)
async def check_consistency(request: Request, query: contract.ConsistencyQuery) -> contract.ConsistencyReport:
    settings: FeatureSettings = request.state.settings
    consistency: Consistency = request.state.consistency
    sample = query.sample or settings.consistency_sample
    with _library_errors():
        return contract.ConsistencyReport(sample, await consistency.check(sample))


@contextmanager
def _library_errors() -> Iterator[None]:
    """Raises the library's errors of definitions and history files as errors of this service."""
    try:
        yield
    except DefinitionError as error:
        raise InvalidDefinitionsError(str(error)) from error
    except TrainingSetError as error:
        raise Conflict(str(error)) from error


def _definitions(request: Request) -> Definitions:
    definitions: Definitions = request.state.definitions
    return definitions


async def _wait_until_applied(definitions: Definitions, store: FeatureStore, frame_id: str, wait_s: float) -> bool:
    """Poll until the frame is applied or the time is over: another process merges it."""
    loop = asyncio.get_running_loop()
    until = loop.time() + wait_s
    while not (applied := definitions.is_complete and await store.is_applied(frame_id)):
        if (left_s := until - loop.time()) <= 0:
            break
        await asyncio.sleep(min(_POLL_S, left_s))
    return applied


async def _accept(
    request: Request, events: Sequence[contract.EntityEvent], request_id: str = ""
) -> contract.EventsAccepted:
    settings: FeatureSettings = request.state.settings
    intake: Intake = request.state.intake
    if len(events) > settings.event_limit:
        raise TooLarge(f"events holds {len(events)} events; one call takes {settings.event_limit}")
    return contract.EventsAccepted(await intake.accept(events, request_id), len(events))

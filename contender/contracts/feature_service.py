"""The feature service's calls: events, definitions and online features."""

from collections.abc import Sequence
from typing import Annotated, Any, Literal

import msgspec
from msgspec import UNSET, Meta, UnsetType

from contender.contracts.operation import Operation
from contender.contracts.problems import (
    CONFLICT,
    JOURNAL_FULL,
    RECORD_TOO_LARGE,
    TOO_LARGE,
    UNAVAILABLE,
    ProblemType,
)
from contender.contracts.values import Scalar

UNKNOWN_VERSION = ProblemType("unknown-version", 404, "No version of a view has that label.")
VERSION_IN_USE = ProblemType(
    "version-in-use", 409, "A version can't be retired: the definitions, or another version, need it."
)
CHECK_RUNNING = ProblemType(
    "check-running",
    409,
    "Served values are being checked already: a check reads the whole topic, so one runs at a time.",
)
UNKNOWN_FEATURE = ProblemType("unknown-feature", 422, "A reference names no view, feature or feature service.")
UNKNOWN_SOURCE = ProblemType("unknown-source", 422, "No event source has that name.")
INVALID_EVENT = ProblemType("invalid-event", 422, "An event does not fit its source's schema.")
INVALID_DEFINITIONS = ProblemType(
    "invalid-definitions", 422, "The definitions can't be loaded; the service keeps those it has."
)

LONGEST_WAIT_S = 60.0
FeatureValue = Scalar | list[Scalar]
"""A number, text, boolean or null; a list for the latest values of a column."""

FeatureStatus = Literal["PRESENT", "NULL_VALUE", "NOT_FOUND", "OUTSIDE_MAX_AGE", "INVALID"]


class OnlineFeaturesQuestion(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Features of rows, as Feast asks for them; `event_timestamps` (seconds) says when each row's windows end.

    `entities` holds one list per join key, and one per request column of on-demand features.
    """

    entities: dict[str, list[Scalar]]
    features: list[str] = []
    feature_service: str = ""
    full_feature_names: bool = False
    include_feature_view_version_metadata: bool = False
    event_timestamps: list[float] = []


class ServedVersion(msgspec.Struct, frozen=True, omit_defaults=True):
    """A view that features were read from, with its version where the question pins one."""

    name: str
    version: int | None = None


class OnlineFeaturesMetadata(msgspec.Struct, frozen=True):
    """The names of the columns, in the order of `results`."""

    feature_names: list[str]
    feature_view_metadata: list[ServedVersion] | UnsetType = UNSET


class FeatureColumn(msgspec.Struct, frozen=True):
    """One column of an answer: a value, a status and the end of the windows per row."""

    values: Sequence[FeatureValue]
    statuses: Sequence[FeatureStatus]
    event_timestamps: Annotated[
        msgspec.Raw,
        Meta(extra_json_schema={"type": "array", "items": {"type": "string", "format": "date-time"}}),
    ] = msgspec.field(default_factory=lambda: msgspec.Raw(b"[]"))


class OnlineFeatures(msgspec.Struct, frozen=True):
    """The entity columns of the question, then its features."""

    metadata: OnlineFeaturesMetadata
    results: list[FeatureColumn]


class EntityEvent(msgspec.Struct, frozen=True):
    """Something that happened to entities: a row of an event source, `values` by the source's schema."""

    source: str
    time: float
    values: dict[str, Scalar]


class NewEvents(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Events to add. A repeated call with the same `request_id` and events counts once."""

    events: list[EntityEvent]
    request_id: str = ""


class EventsAccepted(msgspec.Struct, frozen=True):
    """The events are on disk and will be in the features within moments; a frame is one Kafka record."""

    frame_ids: list[str]
    accepted: int


class FrameQuery(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How many seconds to wait until the frame's events are in the features."""

    wait_s: Annotated[float, Meta(ge=0, le=LONGEST_WAIT_S)] = 0.0


class FrameStatus(msgspec.Struct, frozen=True):
    """Whether the events of a frame are in the features."""

    frame_id: str
    applied: bool


class Push(msgspec.Struct, frozen=True):
    """A table of events, as Feast pushes it. `df` holds one list per column, the source's timestamp among them."""

    push_source_name: str
    df: dict[str, list[Scalar]]
    to: Literal["online", "online_and_offline", "offline"] = "online"
    allow_registry_cache: bool = True
    transform_on_write: bool = True


class OnlineWrite(msgspec.Struct, frozen=True):
    """A table of events, as Feast's SDK writes it: the view has the name of an event source."""

    feature_view_name: str
    df: dict[str, list[Scalar]]
    allow_registry_cache: bool = True
    transform_on_write: bool = True


class EntityDescription(msgspec.Struct, frozen=True):
    """What features describe; `join_key` is the column that names one."""

    name: str
    join_key: str
    description: str = ""
    owner: str = ""
    tags: dict[str, str] = {}


class SourceDescription(msgspec.Struct, frozen=True):
    """A kind of event: its columns with their types (str, int, float or bool) and its history."""

    name: str
    schema: dict[str, str]
    timestamp: str
    history: str
    ingested_at: str
    description: str = ""
    owner: str = ""
    tags: dict[str, str] = {}


class FeatureDescription(msgspec.Struct, frozen=True):
    """A feature: an aggregation of a `kind` over a window, or, with a `type`, a result of an on-demand function.

    `default` stands in for its nulls.
    """

    name: str
    reference: str = ""
    kind: str = ""
    default: Scalar = None
    type: str | UnsetType = UNSET
    column: str | UnsetType | None = UNSET
    window: str | UnsetType = UNSET
    description: str | UnsetType = UNSET
    where: list[Any] | UnsetType | None = UNSET
    n: int | UnsetType = UNSET
    q: float | UnsetType = UNSET
    exact_to: int | UnsetType = UNSET
    of: list[dict[str, Any]] | UnsetType = UNSET


class ViewDescription(msgspec.Struct, frozen=True, kw_only=True):
    """One version of a view.

    `label` is `view@version`; `newest` marks what the definitions say today, `complete` that all of its past is
    filled. `join_keys` and `request` (type by column) are what a question for its features must bring. An on-demand
    view has `inputs`, and its function as `source`; other views have `source`, the name of their events, and windows.
    """

    name: str
    label: str
    digest: str
    newest: bool
    join_keys: list[str] = []
    request: dict[str, str] = {}
    features: list[FeatureDescription] = []
    kind: Literal["view", "on_demand"] = "view"
    version: int = 0
    complete: bool = False
    source: str = ""
    entities: list[EntityDescription] | UnsetType = UNSET
    hop: str | UnsetType = UNSET
    lateness: str | UnsetType = UNSET
    max_age: str | UnsetType = UNSET
    fresh_within: str | UnsetType = UNSET
    inputs: list[str] | UnsetType = UNSET
    description: str = ""
    owner: str = ""
    tags: dict[str, str] = {}


class FeatureServiceDescription(msgspec.Struct, frozen=True):
    """A named list of features."""

    name: str
    features: list[str]
    description: str = ""
    owner: str = ""
    tags: dict[str, str] = {}


class DefinitionsDocument(msgspec.Struct, frozen=True):
    """All definitions; `views` has every kept version, the newest of a name last."""

    views: list[ViewDescription]
    entities: list[EntityDescription] = []
    sources: list[SourceDescription] = []
    feature_services: list[FeatureServiceDescription] = []


class AppliedDefinitions(msgspec.Struct, frozen=True):
    """The labels of the new versions; none where no definition changed."""

    added: list[str]


class RebuildStarted(msgspec.Struct, frozen=True):
    """The number of the rebuild that has begun."""

    generation: int


class Retirement(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The versions to retire, as `view@number`."""

    versions: Annotated[list[str], Meta(min_length=1)]


class RetiredVersions(msgspec.Struct, frozen=True):
    """The versions that are retired now."""

    retired: list[str]


class ViewStatus(msgspec.Struct, frozen=True):
    """How fresh and how full one version of a view is, over all workers.

    `lag_s` is the lag of the slowest record among those merged last, from the record in Kafka to the features; null
    where none came in the last seconds. `events_per_s` covers the last minute. `entities` is as last counted; null
    before the first count. `behind` says that `lag_s`, or the wait of a record, exceeds `objective_s`, or that no
    worker runs.
    """

    label: str
    complete: bool
    newest_event_age_s: float | None
    lag_s: float | None
    objective_s: float
    events_per_s: float
    late: int
    entities: int | None
    behind: bool


class FeaturesStatus(msgspec.Struct, frozen=True):
    """The status of every version of every view.

    `waiting_s` is the age of the oldest record that a worker has read and not merged; 0 where none waits. `unfilled`
    says why features can't be filled.
    """

    views: list[ViewStatus]
    workers: int
    parked: int
    waiting_s: float
    unfilled: list[str]


class ConsistencyQuery(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The share of the entities to check; by default what CONTENDER_CONSISTENCY_SAMPLE says."""

    sample: Annotated[float, Meta(gt=0, le=1)] | None = None


class FeatureReport(msgspec.Struct, frozen=True):
    """How one feature's served values compare with history. Rates are shares of the `compared` values.

    `missing`: history has a value and nothing is served; `extra`: the other way round; `mismatch`: both, and they
    differ, by `error_mean` and at most `error_max`.
    """

    feature: str
    compared: int
    mismatch: float
    missing: float
    extra: float
    error_mean: float
    error_max: float


class ConsistencyReport(msgspec.Struct, frozen=True):
    """The share of the entities that was checked, and a report per feature."""

    sample: float
    features: list[FeatureReport]


_ENDS = ["2026-01-01T00:00:00Z"]
_COLUMNS: list[dict[str, Any]] = [
    {"values": ["EWR"], "statuses": ["PRESENT"], "event_timestamps": _ENDS},
    {"values": [12.5], "statuses": ["PRESENT"], "event_timestamps": _ENDS},
]
_ENTITY: dict[str, Any] = {
    "name": "origin",
    "join_key": "origin",
    "description": "An airport of departure.",
    "owner": "flights",
    "tags": {},
}
_TABLE = {"origin": ["EWR"], "dep_delay": [12.5], "event_timestamp": [1767225600.0]}
_ACCEPTED = {"frame_ids": ["01jgf0v6q8t2n4y7c9e3k5m1wx"], "accepted": 1}
_REFERENCE = "origin_delays:mean_dep_delay_1h"
_VIEW: dict[str, Any] = {
    "kind": "view",
    "name": "origin_delays",
    "label": "origin_delays@1",
    "version": 1,
    "digest": "fc5044f2bd54974f",
    "newest": True,
    "complete": True,
    "join_keys": ["origin"],
    "request": {},
    "features": [
        {
            "name": "mean_dep_delay_1h",
            "reference": _REFERENCE,
            "kind": "mean",
            "column": "dep_delay",
            "window": "1h",
            "description": "",
            "where": None,
            "default": None,
        }
    ],
    "source": "departures",
    "entities": [_ENTITY],
    "hop": "5m",
    "lateness": "1h",
    "max_age": "",
    "fresh_within": "1s",
    "description": "How late the airport of departure is.",
    "owner": "flights",
    "tags": {},
}
_SOURCE: dict[str, Any] = {
    "name": "departures",
    "schema": {"origin": "str", "dep_delay": "float"},
    "timestamp": "event_timestamp",
    "history": "",
    "ingested_at": "",
    "description": "An aircraft has left.",
    "owner": "flights",
    "tags": {},
}
_STATUS: dict[str, Any] = {
    "label": "origin_delays@1",
    "complete": True,
    "newest_event_age_s": 1.5,
    "lag_s": 0.04,
    "objective_s": 1.0,
    "events_per_s": 120.0,
    "late": 0,
    "entities": 3,
    "behind": False,
}
_REPORT: dict[str, Any] = {
    "feature": _REFERENCE,
    "compared": 40,
    "mismatch": 0.0,
    "missing": 0.0,
    "extra": 0.0,
    "error_mean": 0.0,
    "error_max": 0.0,
}
_EVENT_PROBLEMS = (UNKNOWN_SOURCE, INVALID_EVENT, RECORD_TOO_LARGE, JOURNAL_FULL)

GET_ONLINE_FEATURES = Operation(
    "get_online_features",
    "POST",
    "/get-online-features",
    "Answers features of rows as of now, or as of each row's `event_timestamps`.",
    OnlineFeatures,
    body=OnlineFeaturesQuestion,
    problems=(UNKNOWN_FEATURE, TOO_LARGE, UNAVAILABLE),
    tag="feast",
    body_example={"features": [_REFERENCE], "entities": {"origin": ["EWR"]}},
    answer_example={"metadata": {"feature_names": ["origin", "mean_dep_delay_1h"]}, "results": _COLUMNS},
)
PUSH = Operation(
    "push",
    "POST",
    "/push",
    "Adds the rows of a table as events of a source.",
    EventsAccepted,
    body=Push,
    problems=_EVENT_PROBLEMS,
    tag="feast",
    body_example={"push_source_name": "departures", "df": _TABLE},
    answer_example=_ACCEPTED,
)
WRITE_TO_ONLINE_STORE = Operation(
    "write_to_online_store",
    "POST",
    "/write-to-online-store",
    "Adds the rows that Feast's SDK writes as events of the source that the view is named after.",
    EventsAccepted,
    body=OnlineWrite,
    problems=_EVENT_PROBLEMS,
    tag="feast",
    body_example={"feature_view_name": "departures", "df": _TABLE},
    answer_example=_ACCEPTED,
)
ADD_EVENTS = Operation(
    "add_events",
    "POST",
    "/v1/events",
    "Adds events; they are on disk when this answers, and reach the features within moments.",
    EventsAccepted,
    body=NewEvents,
    status=202,
    problems=_EVENT_PROBLEMS,
    tag="events",
    body_example={
        "events": [{"source": "departures", "time": 1767225600.0, "values": {"origin": "EWR", "dep_delay": 12.5}}]
    },
    answer_example=_ACCEPTED,
)
GET_FRAME = Operation(
    "get_frame",
    "GET",
    "/v1/frames/{frame_id}",
    "Says whether the events of a frame are in the features; waits up to `wait_s` seconds until they are.",
    FrameStatus,
    query=FrameQuery,
    problems=(UNAVAILABLE,),
    tag="events",
    answer_example={"frame_id": "01jgf0v6q8t2n4y7c9e3k5m1wx", "applied": True},
)
SHOW_DEFINITIONS = Operation(
    "get_definitions",
    "GET",
    "/v1/definitions",
    "Lists all definitions: entities, sources, views with their features, feature services.",
    DefinitionsDocument,
    tag="features",
    answer_example={
        "entities": [_ENTITY],
        "sources": [_SOURCE],
        "views": [_VIEW],
        "feature_services": [
            {"name": "streaming", "features": [_REFERENCE], "description": "", "owner": "flights", "tags": {}}
        ],
    },
)
APPLY_DEFINITIONS = Operation(
    "apply_definitions",
    "POST",
    "/v1/definitions/apply",
    "Loads the definitions again; each changed view becomes a new version, which is filled.",
    AppliedDefinitions,
    problems=(INVALID_DEFINITIONS, UNAVAILABLE),
    tag="features",
    answer_example={"added": ["origin_delays@2"]},
)
REBUILD_FEATURES = Operation(
    "rebuild_features",
    "POST",
    "/v1/definitions/rebuild",
    "Fills all features again, from the history files as they are now and from the topic; the stream goes on.",
    RebuildStarted,
    status=202,
    problems=(INVALID_DEFINITIONS, UNAVAILABLE),
    tag="features",
    answer_example={"generation": 1},
)
RETIRE_VERSIONS = Operation(
    "retire_versions",
    "POST",
    "/v1/definitions/retire",
    "Permanently stops serving and filling old versions of views, and frees their memory in Redis.",
    RetiredVersions,
    body=Retirement,
    problems=(UNKNOWN_VERSION, VERSION_IN_USE, UNAVAILABLE),
    tag="features",
    body_example={"versions": ["origin_delays@1"]},
    answer_example={"retired": ["origin_delays@1"]},
)
SHOW_STATUS = Operation(
    "get_status",
    "GET",
    "/v1/features/status",
    "Shows how fresh and how full every version of every view is, over all workers.",
    FeaturesStatus,
    problems=(UNAVAILABLE,),
    tag="features",
    answer_example={"views": [_STATUS], "workers": 2, "parked": 0, "waiting_s": 0.0, "unfilled": []},
)
CHECK_CONSISTENCY = Operation(
    "check_consistency",
    "POST",
    "/v1/consistency",
    "Compares the served values of sampled entities with the topic and the history files; one check runs at a time.",
    ConsistencyReport,
    query=ConsistencyQuery,
    problems=(CHECK_RUNNING, CONFLICT, UNAVAILABLE),
    tag="features",
    answer_example={"sample": 0.1, "features": [_REPORT]},
)

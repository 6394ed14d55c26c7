"""Request bodies: our own of /v1, and Feast's of /get-online-features, /push and /write-to-online-store."""

from typing import Annotated, Literal

import msgspec

from contender.contracts.values import Scalar
from shared.events import EntityEvent


class EventsGiven(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Body of POST /v1/events. A repeated call with the same `request_id` and events counts once."""

    events: list[EntityEvent]
    request_id: str = ""


class Retirement(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Body of POST /v1/definitions/retire: versions, as `view@number`."""

    versions: Annotated[list[str], msgspec.Meta(min_length=1)]


class OnlineQuestion(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Body of POST /get-online-features: Feast's, and `event_timestamps`, when each row's windows end, in seconds.

    `entities` holds the join keys, and beside them the request columns of on-demand features.
    """

    entities: dict[str, list[Scalar]]
    features: list[str] = []
    feature_service: str = ""
    full_feature_names: bool = False
    include_feature_view_version_metadata: bool = False
    event_timestamps: list[float] = []


class Push(msgspec.Struct, frozen=True):
    """Body of POST /push: Feast's. `df` holds one list per column, the source's timestamp among them."""

    push_source_name: str
    df: dict[str, list[Scalar]]
    to: Literal["online", "online_and_offline", "offline"] = "online"
    allow_registry_cache: bool = True
    transform_on_write: bool = True


class OnlineWrite(msgspec.Struct, frozen=True):
    """Body of POST /write-to-online-store: Feast's. Its view is one named as an event source of ours."""

    feature_view_name: str
    df: dict[str, list[Scalar]]
    allow_registry_cache: bool = True
    transform_on_write: bool = True

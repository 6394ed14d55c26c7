"""Rings of tiles: what they hold, what frames add to them, and the values of features that they give."""

from services.feature_service.domain.contents import RingContents
from services.feature_service.domain.reports import compare
from services.feature_service.domain.rings import (
    HISTORY,
    Ring,
    Rings,
    StoredRing,
    entity_text,
    entity_texts,
)
from services.feature_service.domain.tallies import Tally, by_source, tally
from services.feature_service.domain.validation import Fault, fault, fits
from services.feature_service.domain.windows import Column, HeldRing, RingBatch, RingGroup

__all__ = [
    "HISTORY",
    "Column",
    "Fault",
    "HeldRing",
    "Ring",
    "RingBatch",
    "RingContents",
    "RingGroup",
    "Rings",
    "StoredRing",
    "Tally",
    "by_source",
    "compare",
    "entity_text",
    "entity_texts",
    "fault",
    "fits",
    "tally",
]

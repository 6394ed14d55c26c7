"""Tells whether an experiment has changed since it was last looked at."""

import hashlib
from collections.abc import Sequence

import msgspec

from contender.contracts.experiments import ExperimentRevision
from services.feedback_service.domain.day_sequence import reached_day
from services.feedback_service.domain.design import design_of
from services.feedback_service.domain.merging import watermark_of
from services.feedback_service.domain.snapshots import PartitionSnapshot


def fingerprint(name: str, revision: ExperimentRevision | None, snapshots: Sequence[PartitionSnapshot]) -> bytes:
    """A digest of what a look finds something by: another look at the same finds nothing new.

    A look knows the clock by the watermark of the groups alone, and finds two things by it: which days are whole, and
    whether late reports have been waited for, where a missing one counts. The watermark of an idle experiment goes on
    all day, and the digest changes once a day, or with each step of it in the second case. What a look only shows is
    not in it: offsets and counts of the partitions, and how long a verdict may still take.
    """
    groups = [group for snapshot in snapshots for group in snapshot.groups]
    digest = hashlib.blake2b(msgspec.json.encode(revision), digest_size=16)  # whose numbers may be of any size
    watermark = watermark_of(groups)
    if watermark is not None:
        design = design_of(name, revision, groups)
        day = reached_day(watermark, design.window_s, design.time_zone)
        digest.update(msgspec.msgpack.encode((day, watermark if design.counts_missing(design.metric) else None)))
    for snapshot in snapshots:
        seen = [msgspec.structs.replace(group, watermark=0.0) for group in snapshot.groups]
        digest.update(msgspec.msgpack.encode((snapshot.partition, snapshot.status.since, seen)))
    return digest.digest()

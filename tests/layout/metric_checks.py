"""Run in a copy of the packages that has the metric `distance`: all that a metric must come with."""

import asyncio
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from math import inf
from pathlib import Path

import msgspec
import pytest
from fastapi import FastAPI

import contender
from contender.contracts import feedback_service
from contender.contracts.experiments import CREATE_EXPERIMENT, ExperimentRevision, NewExperiment, VariantAllocation
from contender.contracts.inference_service import ModelVersion
from services.ab_router.domain.experiments import draft
from services.feedback_service.changes import InMemoryTable
from services.feedback_service.experiments import InMemoryExperiments
from services.feedback_service.handlers import ReadResults
from services.feedback_service.join import Join, SourceOffset
from services.feedback_service.main import create_app
from services.feedback_service.settings import FeedbackSettings
from services.feedback_service.store import InMemorySnapshots
from services.feedback_service.verdict_store import InMemoryVerdictStore
from shared.clock import FixedClock
from shared.errors import InvalidField
from shared.events import FeedbackFrame, FeedbackGiven, PredictionBlock, PredictionFrame
from shared.openapi import openapi_document
from shared.testing import client_for

METRIC = "distance"
ROWS = 400
VARIANTS = [VariantAllocation("champion", "v1", 0.5), VariantAllocation("challenger", "v2", 0.5)]


def drafted(task: str, classes: list[str]) -> ExperimentRevision:
    versions = {
        name: ModelVersion(model="m", version=name, task=task, classes=classes, inputs=[], registered_at=1.0)
        for name in ("v1", "v2")
    }
    new = NewExperiment(
        name="e", model="m", variants=VARIANTS, metric=METRIC, window_s=10.0, cycle_days=0, cycle_reason="a test"
    )
    return draft(new, versions, seed="s", now=1.0)


def router_accepts_it_for_its_task() -> ExperimentRevision:
    with pytest.raises(InvalidField) as refused:
        drafted("regression", [])
    assert [fault.field for fault in refused.value.errors] == ["metric"]
    return drafted("binary", ["no", "yes"])


def documents_show_it() -> None:
    for operation in (CREATE_EXPERIMENT, feedback_service.GET_RESULTS):
        assert f'"{METRIC}"' in msgspec.json.encode(openapi_document("t", "1", [operation])).decode()


async def published() -> InMemorySnapshots:
    """Two variants of 400 labelled rows; the challenger's scores are nearer to the outcomes."""
    blocks = [
        PredictionBlock(
            model="m",
            version=variant,
            task="binary",
            classes=["no", "yes"],
            experiment="e",
            window_s=10.0,
            variant=variant,
            served_variant=variant,
            assignment_probability=0.5,
            unit=[f"u{row}" for row in range(ROWS)],
            time=[float(row) for row in range(ROWS)],
            score=[0.5 + (row % 2 - 0.5) * confidence * (1 + row % 7 / 10) for row in range(ROWS)],
        )
        for variant, confidence in (("champion", 0.1), ("challenger", 0.5))
    ]
    join = Join([InMemoryTable()].__getitem__)
    join.assign([0])
    join.partitions[0].record_predictions("f", PredictionFrame(blocks), SourceOffset(0))
    events = [FeedbackGiven("f", row, ["no", "yes"][row % 2], row % ROWS + 1.0) for row in range(2 * ROWS)]
    join.partitions[0].record_feedback(FeedbackFrame(events), SourceOffset(0))
    snapshots = InMemorySnapshots()
    aggregates = join.partitions[0].aggregates
    aggregates.note_ends(aggregates.request_ends(inf), predictions=1, feedback=1)
    aggregates.fold()
    for update in aggregates.updates(10):
        await snapshots.write(update)
    await snapshots.write_status(aggregates.status(77.0))
    return snapshots


async def results_and_page_show_it(revision: ExperimentRevision) -> None:
    experiments = InMemoryExperiments()
    experiments.put(revision)
    results = ReadResults(await published(), experiments, FixedClock(1000.0), InMemoryVerdictStore())

    @asynccontextmanager
    async def resources(_: FeedbackSettings) -> AsyncIterator[dict[str, object]]:
        yield {"read_results": results}

    app: FastAPI = create_app(FeedbackSettings(), resources)
    async with client_for(app) as client:
        answer = (await client.get("/v1/experiments/e/results")).json()
        page = (await client.get("/experiments/e")).text
    assert answer["metric"] == METRIC
    assert answer["effects"]["challenger"][METRIC]["better"] is True
    assert answer["verdict"]["status"] == "challenger better"
    assert "distance to the outcome (decides)" in page


def main() -> None:
    """Check everything, and say so."""
    assert Path(contender.__file__).is_relative_to(Path.cwd())
    documents_show_it()
    asyncio.run(results_and_page_show_it(router_accepts_it_for_its_task()))
    sys.stdout.write(f"{METRIC} decides\n")


if __name__ == "__main__":
    main()

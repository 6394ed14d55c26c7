"""Writes docs/reference.md from the code: settings, endpoints, topics and metrics. `make docs` runs it."""

import importlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from fastapi import FastAPI
from prometheus_client import REGISTRY, Metric

from embedded.settings import StackSettings
from services.ab_router import main as ab_router
from services.ab_router.settings import RouterSettings
from services.feature_service import main as feature_service
from services.feature_service.settings import FeatureSettings
from services.feedback_service import main as feedback_service
from services.feedback_service.settings import FeedbackSettings
from services.inference_service import main as inference_service
from services.inference_service.settings import InferenceSettings
from shared.settings import Settings
from shared.topics import ALL, PARKED_NAME

PATH = Path(__file__).parents[1] / "docs" / "reference.md"
SETTINGS: dict[str, type[Settings]] = {
    "Every process": Settings,
    "Router": RouterSettings,
    "Feature service": FeatureSettings,
    "Inference service": InferenceSettings,
    "Feedback service": FeedbackSettings,
    "Embedded stack (`contender up`)": StackSettings,
}
MODULES = (
    "shared.http",
    "shared.publisher",
    "shared.streams",
    "services.ab_router.handlers.predictions",
    "services.ab_router.control",
    "services.feature_service.metrics",
    "services.feedback_service.worker",
)


def reference() -> str:
    """The whole page."""
    parts = ["# Reference", "", "Written by `make docs` from the code; a test holds the two together.", ""]
    parts += [
        "## Settings",
        "",
        "Environment variables. An invalid value stops the start with a message that names the variable.",
        "",
    ]
    for title, settings in SETTINGS.items():
        parts += [f"### {title}", "", *_table(["variable", "default", "meaning"], _settings(settings)), ""]
    parts += [
        "## HTTP",
        "",
        "Errors are problem details (RFC 9457), under `/v2` the Open Inference Protocol's own.",
        "",
    ]
    for title, app in _apps().items():
        parts += [f"### {title}", "", *_table(["method", "path", "what it does"], _routes(app)), ""]
    parts += ["## Topics", "", *_table(["topic", "event type", "writer", "kept"], _topics()), ""]
    parts += ["## Metrics", "", *_table(["metric", "kind", "meaning"], _metrics()), ""]
    return "\n".join(parts)


def _settings(settings: type[Settings]) -> Iterator[list[str]]:
    common = set() if settings is Settings else set(Settings.model_fields)
    for name, field in settings.model_fields.items():
        if name not in common:
            variable = field.validation_alias or f"CONTENDER_{name.upper()}"
            yield [f"`{variable}`", _default(name, field.default), field.description or ""]


def _default(name: str, value: Any) -> str:
    if name in ("data", "home"):  # a path of the machine that writes the page
        return "`~/.contender/data`" if name == "data" else "`~/.contender`"
    return f"`{value}`" if value != "" else ""


def _apps() -> dict[str, FastAPI]:
    return {
        "Router, port 8400": ab_router.create_app(RouterSettings()),
        "Feature service, port 8401": feature_service.create_app(feature_service.web_resources(FeatureSettings())),
        "Inference service, port 8402": inference_service.create_app(InferenceSettings()),
        "Feedback service, port 8403": feedback_service.create_app(FeedbackSettings()),
    }


def _routes(app: FastAPI) -> Iterator[list[str]]:
    for path, operations in app.openapi()["paths"].items():
        for method, operation in operations.items():
            yield [method.upper(), f"`{path}`", operation.get("summary", "")]


def _topics() -> Iterator[list[str]]:
    for topic in ALL:
        yield [
            f"`{topic.name}`",
            f"`{topic.type_name}`",
            topic.writer,
            "newest by key" if topic.compacted else "by time",
        ]
    yield [f"`{PARKED_NAME}`", "bytes as they came", "any worker", "by time"]


def _metrics() -> Iterator[list[str]]:
    for module in MODULES:
        importlib.import_module(module)
    for metric in sorted(REGISTRY.collect(), key=_metric_name):
        if metric.name.startswith("contender_"):
            yield [f"`{_metric_name(metric)}`", metric.type, metric.documentation]


def _metric_name(metric: Metric) -> str:
    return metric.name + ("_total" if metric.type == "counter" else "")


def _table(head: list[str], rows: Iterator[list[str]]) -> list[str]:
    lines = [head, ["---"] * len(head), *rows]
    return ["| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines]


if __name__ == "__main__":
    PATH.write_text(reference())

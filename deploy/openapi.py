"""Writes the golden files of the OpenAPI documents, tests/contract/openapi/<service>.json. Run it with `make docs`."""

import json
from collections.abc import Callable
from pathlib import Path

from fastapi import FastAPI

from services.ab_router import main as ab_router
from services.ab_router.settings import RouterSettings
from services.feature_service import main as feature_service
from services.feature_service.settings import FeatureSettings
from services.feedback_service import main as feedback_service
from services.feedback_service.settings import FeedbackSettings
from services.inference_service import main as inference_service
from services.inference_service.settings import InferenceSettings

FOLDER = Path(__file__).parents[1] / "tests" / "contract" / "openapi"
SERVICES: dict[str, Callable[[], FastAPI]] = {
    "ab_router": lambda: ab_router.create_app(RouterSettings()),
    "feature_service": lambda: feature_service.create_app(feature_service.web_resources(FeatureSettings())),
    "inference_service": lambda: inference_service.create_app(InferenceSettings()),
    "feedback_service": lambda: feedback_service.create_app(FeedbackSettings()),
}


def document(service: str) -> str:
    """The document as its golden file has it."""
    return json.dumps(SERVICES[service]().openapi(), indent=1, ensure_ascii=False) + "\n"


if __name__ == "__main__":
    for name in SERVICES:
        (FOLDER / f"{name}.json").write_text(document(name))

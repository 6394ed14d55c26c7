"""Use cases of the router: predictions and experiments. They know neither HTTP nor Kafka."""

from services.ab_router.handlers.experiments import Experiments
from services.ab_router.handlers.predictions import Predict, all_refused
from services.ab_router.handlers.readiness import Readiness

__all__ = ["Experiments", "Predict", "Readiness", "all_refused"]

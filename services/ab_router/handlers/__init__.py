"""Use cases of the router: predictions and experiments. They know neither HTTP nor Kafka."""

from services.ab_router.handlers.experiments import Experiments
from services.ab_router.handlers.predictions import Predict, all_refused

__all__ = ["Experiments", "Predict", "all_refused"]

"""Use cases of the web process: submit feedback, read results. They know no HTTP and no Kafka."""

from services.feedback_service.handlers.feedback import SubmitFeedback
from services.feedback_service.handlers.results import ReadResults

__all__ = ["ReadResults", "SubmitFeedback"]

"""Contender as a provider of OpenFeature: experiments are its flags, and what it tracks is feedback.

Needs the extra `openfeature`.
"""

import logging
from typing import Any, get_args

import msgspec

from contender.bodies import plain
from contender.client import Client
from contender.contracts.feedback_service import FeedbackItem
from contender.contracts.values import FEEDBACK_KINDS
from contender.errors import ContenderError
from contender.extras import needs_extra
from contender.feedback_queue import FeedbackQueue

with needs_extra("openfeature", "evaluating experiments as flags of OpenFeature"):
    from openfeature.contrib.provider.ofrep import (  # type: ignore[import-not-found,unused-ignore] # where the extra is not installed
        OFREPProvider,
    )
    from openfeature.evaluation_context import (  # type: ignore[import-not-found,unused-ignore]
        EvaluationContext,
    )
    from openfeature.provider import Metadata  # type: ignore[import-not-found,unused-ignore]
    from openfeature.track import TrackingEventDetails  # type: ignore[import-not-found,unused-ignore]

PREDICTION_ID = "prediction_id"
_MOST_NOTED = 100
_LOG = logging.getLogger(__name__)
_EVENTS = frozenset(
    field.name
    for field in msgspec.structs.fields(FeedbackItem)
    if field.name in FEEDBACK_KINDS and bool in get_args(field.type) and str not in get_args(field.type)
)
"""The kinds that are whether something happened."""


class ContenderProvider(OFREPProvider):  # type: ignore[misc,unused-ignore]
    """OpenFeature's provider of OFREP on a router, whose `track` gives feedback.

    A flag is an experiment in force: its value is the name of the variant, as text. The targeting key is the unit.

    `client.track("conversion", tracking_event_details=TrackingEventDetails(attributes={"prediction_id": ...}))` says
    that a prediction led to one. The event's name is the kind of feedback. Its value is the attribute of that name,
    else the details' number; what can only have happened needs none. `time` may be among the attributes. A thread
    sends it, so that nobody waits. An event without a prediction id, of another kind or with a value that does not
    suit, is logged once and dropped, as feedback that can't be sent is: applications track to observe, not to fail.

    Args:
        client: where the router and the feedback service are; default: `Client()`, which `shutdown` closes.
        timeout_s: longest wait for an evaluation, and for the feedback that waits at the end.
    """

    def __init__(self, client: Client | None = None, *, timeout_s: float = 5.0) -> None:
        known = Client(timeout_s=timeout_s) if client is None else client
        super().__init__(known.url, timeout=timeout_s)
        self._own_client = known if client is None else None
        self._feedback = FeedbackQueue(known)
        self._noted: set[str] = set()

    def get_metadata(self) -> Metadata:
        """The provider's name."""
        return Metadata(name="Contender")

    def track(
        self,
        tracking_event_name: str,
        evaluation_context: EvaluationContext | None = None,  # noqa: ARG002 - the prediction has its unit and context
        tracking_event_details: TrackingEventDetails | None = None,
    ) -> None:
        """Report on a prediction; see the class."""
        details = tracking_event_details or TrackingEventDetails()
        try:
            report = _report(tracking_event_name, details.value, details.attributes)
        except (ContenderError, msgspec.ValidationError) as error:
            self._note(tracking_event_name, str(error))
        else:
            self._feedback.add(report)

    def shutdown(self) -> None:
        """Send the feedback that waits, and close the connections."""
        self._feedback.close(self.timeout)
        self.session.close()
        if self._own_client is not None:
            self._own_client.close()

    def _note(self, name: str, fault: str) -> None:
        if name not in self._noted and len(self._noted) < _MOST_NOTED:
            self._noted.add(name)
            _LOG.warning("tracked events %r are dropped, such as one whose fault is: %s", name, fault)


def _report(kind: str, number: float | None, attributes: dict[str, Any]) -> dict[str, Any]:
    """The report of a tracked event.

    Raises:
        ContenderError, ValidationError: it is none.
    """
    if kind not in FEEDBACK_KINDS:
        raise ContenderError(f"the name is no kind of feedback: {', '.join(FEEDBACK_KINDS)}")
    if not attributes.get(PREDICTION_ID):
        raise ContenderError(f"the attribute {PREDICTION_ID} is missing: give that of the prediction")
    value = attributes.get(kind, number)
    if kind in _EVENTS:
        value = True if value is None else bool(value)
    elif value is None:
        raise ContenderError(f"the value is missing: give the attribute {kind}, or the details' value")
    report: dict[str, Any] = plain({PREDICTION_ID: attributes[PREDICTION_ID], kind: value})
    report |= {"time": attributes["time"]} if "time" in attributes else {}
    msgspec.convert(report, FeedbackItem)
    return report

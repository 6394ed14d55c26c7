"""The names of the topics, for producers and readers of one's own."""

ENTITY_EVENTS = "entity-events"
PREDICTIONS = "predictions"
FEEDBACK = "feedback"
EXPERIMENTS = "experiments"
VERDICTS = "verdicts"
PARKED = "parked"

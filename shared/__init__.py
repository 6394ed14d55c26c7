"""What crosses a boundary between services: events, topics, HTTP contracts, stream glue, journal, telemetry."""

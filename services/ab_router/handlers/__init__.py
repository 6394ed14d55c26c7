"""Use cases of the router: predictions and experiments. They know neither HTTP nor Kafka."""

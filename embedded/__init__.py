"""The whole of Contender on one machine without Docker, root or a system Java: Kafka, Valkey and the services."""

"""Alembic's environment, the same for every service; the scripts lie in each service's own `migrations`."""

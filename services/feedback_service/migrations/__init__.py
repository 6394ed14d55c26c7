"""Changes of the tables, in order; `shared.sql` runs them when it opens the database."""

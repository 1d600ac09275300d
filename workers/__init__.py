"""Celery tasks, judges and engines: everything that runs on a machine with a model."""

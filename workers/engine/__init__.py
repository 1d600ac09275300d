"""What runs a model. Imports `reasoning` alone of ours, so that it runs and is measured without Celery or a database.

Read `protocol` first. This package is the only place that imports torch or transformers (training apart).
"""

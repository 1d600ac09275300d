"""The method itself: stage-level beam search as pure functions over persisted rows.

Standard library only. Nothing here knows torch, Celery, SQL, a clock or a network.
Start with `stages`, then `policy`, `records` and `plan`.
"""

"""Scores answers against known ones: extraction from CONCLUSION, accuracy with a confidence interval."""

from evaluation.extract import Expected, agrees
from evaluation.score import Record, Report, score

__all__ = ["Expected", "Record", "Report", "agrees", "score"]

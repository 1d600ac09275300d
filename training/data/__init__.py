"""Structured data: rows in the LLaVA-CoT-100k format, teachers that write them, samples that a model confirms."""

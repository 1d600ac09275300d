"""The OpenAI wire: files, batches, models and chat completions over the same jobs, files and queries.

Facts and section numbers: openai-batch-wire.md.
"""

"""Supervised fine-tuning with TRL: configuration, batches, and the run itself."""

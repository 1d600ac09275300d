"""Readers of public benchmarks: one module each, from the benchmark's own files to input lines with answers."""

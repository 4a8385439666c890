"""Benchmarks: one module a question, each against a reference measured in the same run."""

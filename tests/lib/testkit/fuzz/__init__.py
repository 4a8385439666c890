"""Fuzzing of everything that reads DER: a corpus, mutants of it, the entry points, and a run that counts."""

"""Runs, as pure rules: job files, names, cutting, credit, what is fed and not merged.

Comes in: job files, rows, progress. Goes out: decisions. Nothing here talks to a broker or a disk,
but for the reading of a job file.
"""

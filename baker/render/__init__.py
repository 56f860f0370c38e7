"""Sinks: what a person, a log file or another program sees of the events."""

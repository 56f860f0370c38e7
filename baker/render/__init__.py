"""Sinks, which show the events of builds to a user, in a log file, or to another program."""

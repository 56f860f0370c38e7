"""The evidence of a build: readers and writers for the files that a build's record refers to."""

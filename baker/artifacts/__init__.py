"""The evidence of a build: what is in the files that a record refers to, and the code that reads and writes them."""

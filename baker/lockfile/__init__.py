"""The lock of a template: what its last build was made of, in a file to be committed beside it."""

"""Access to AWS for all of bake: sessions, errors as bake's own types, waiting. Only this package imports boto3."""

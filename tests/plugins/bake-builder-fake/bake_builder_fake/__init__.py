"""A builder for bake whose machines do not exist."""

"""One build: the recipe, its stages, and the values that they hand on."""

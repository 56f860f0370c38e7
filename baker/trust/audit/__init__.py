"""`bake audit`: the whole story of an image. story.py gathers it, the others show it."""

"""`bake audit`: everything on record about an image, with checks. story.py collects it, the other modules present it."""

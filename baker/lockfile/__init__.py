"""Lock files: what the image of a template was built from, in a file that is committed beside the template."""

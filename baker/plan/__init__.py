"""From a template to a plan: keys of steps, the fingerprint, and the order in which a run builds its images."""

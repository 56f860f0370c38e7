"""From a template to a plan: the keys of the steps, the fingerprint, and the order in which a run builds its images."""

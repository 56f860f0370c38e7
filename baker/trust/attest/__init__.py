"""Attestations: signed statements about images, and the checks that compare them with the records and blobs."""

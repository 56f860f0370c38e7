"""What can be proven of an image: signed statements, audits, bills of materials."""

"""The result record and its renderings."""

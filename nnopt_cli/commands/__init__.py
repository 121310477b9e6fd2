"""Subcommands that are not passes, and the one that runs a pass."""

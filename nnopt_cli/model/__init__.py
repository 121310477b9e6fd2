"""Model, its provenance, and the naming rules of its parameters."""

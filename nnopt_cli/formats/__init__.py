"""One module per file format: read lazily and safely, write atomically."""

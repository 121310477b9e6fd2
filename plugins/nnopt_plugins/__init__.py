"""The built-in methods, loaded through the same entry points as anyone else's."""

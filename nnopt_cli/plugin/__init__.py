"""The hook, the manager, component base classes, and how options become flags."""

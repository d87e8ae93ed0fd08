"""Segments: regions without classes, made by clustering or a promptable network, over which seeds vote."""

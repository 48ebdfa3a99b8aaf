"""Sheets, overlays and files: what leaves the graph."""

"""Names of files in the directory of a pass."""

MANIFEST_NAME = "_manifest.json"
"""The manifest of a pass; a dense model has its own, `manifest.json`."""

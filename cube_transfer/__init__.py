"""The daemon that brings each pass into production."""

"""Parsers of the configuration files, as the original's users have them."""

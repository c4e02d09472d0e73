"""A whole deployment from one file: its configuration written, its local processes run."""

"""The page of the daemon: what is served, how it got there, and what is wrong right now."""

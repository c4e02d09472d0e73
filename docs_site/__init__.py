"""What `mkdocs build` does besides: links out of `docs/`, and pages that are made of the code."""

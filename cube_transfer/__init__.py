"""The daemon that brings each pass into production: it watches a donefile, pulls the pass it names,
has it built into shard tables, ships them, loads them everywhere, then switches every server."""

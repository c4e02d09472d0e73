"""`cube-cli`: asks the servers of a `cube.conf`, measures them, and shows how they are."""

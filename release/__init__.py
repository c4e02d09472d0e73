"""What is checked of a release beside its code: dependencies, their licences, packages."""

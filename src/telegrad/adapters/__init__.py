"""telegrad in other people's tools, one a file. Each loads its framework only when it is used."""

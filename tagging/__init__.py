"""Multi-label audio tagging: the library behind the four scripts, in the order in which the data flows."""

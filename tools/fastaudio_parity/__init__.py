"""Our transforms against fastaudio's own, which run in an environment of their own."""

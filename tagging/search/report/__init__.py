"""The report of a study. May import the rest of `tagging.search`, which imports nothing from here."""

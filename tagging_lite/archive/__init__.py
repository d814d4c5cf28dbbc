"""Tag archives: many files, read from anywhere, on all cores, into a folder that a later call completes."""

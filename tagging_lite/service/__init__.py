"""The parts of the HTTP service, see tagging_lite.serve."""

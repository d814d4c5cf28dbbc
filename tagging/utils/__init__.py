"""Small helpers that do not depend on audio: files, locks, seeds, devices, signals, progress bars, log output.

Imports only `tagging.errors`. Plain Python values come in and go out.
"""

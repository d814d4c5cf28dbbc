"""Small helpers that know nothing about audio: files, locks, seeds, devices, signals, progress bars, log output.

Imports only `tagging.errors`. Plain Python values come in and go out.
"""

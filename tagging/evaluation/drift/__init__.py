"""Drift: logs of tags (logs), their counts (tally), and the comparison with the clips of a run (shares).

Input: logs of the service or of `tools.tag`, out-of-fold predictions, training labels. Output: which classes moved.
"""

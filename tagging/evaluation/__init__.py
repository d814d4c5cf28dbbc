"""From trained models to scores: predictions of clips, ensembles, submissions, and the analysis of errors.

May import `tagging.run`, `tagging.modeling` and everything before them. Models or run folders come in; DataFrames of
predictions (index fname, columns the classes) go out.
"""

"""Baselines: clip features, classical models, and their runs.

`features` turns clips into numbers, `models` lists the models, `forms` has the three forms in which a fitted model is
kept, `model` its file, `fitting` its run, and `runs` treats the runs of networks and baselines alike.
"""

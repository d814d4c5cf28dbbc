"""Training: batches, optimizer, the loop with fastai, checkpoints, a stage with all its folds, and several processes.

May import `tagging.evaluation` and everything before it. A competition and a recipe come in; a run folder with weights
and out-of-fold predictions goes out.
"""

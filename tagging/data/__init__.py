"""The competition folder as Python objects: tables, classes, clips, folds, and decoded waveforms.

May import `tagging.utils`, `tagging.recipe` and `tagging.metric`. A folder in Kaggle's or Zenodo's layout comes in;
clips with targets and folds, and batches of crops from a memory-mapped store, go out.
"""

"""The competition folder as Python objects: tables, classes, clips, folds, and decoded waveforms.

May import `tagging.utils`, `tagging.recipe` and `tagging.metric`. A folder in Kaggle's or Zenodo's layout comes in;
clips with targets and folds, and batches of crops from a memory-mapped store, go out.
"""
import pandas as pd

# Where pyarrow is installed, pandas would keep strings in it, and they could not hold names that are not UTF-8.
pd.set_option("mode.string_storage", "python")

"""Get the data of the competition from Zenodo or Kaggle: python -m tools.download OUT --from zenodo"""

"""Search for the best knobs with Optuna: many trials, each of them an ordinary run, trained by the ordinary scripts.

May import every other package of `tagging`. Training imports nothing from here and does not use Optuna. A recipe and a
space of knobs come in; a journal, a folder for each trial, and a report go out.
"""

"""Seeds for the random number generators."""
from tagging.utils.files import fingerprint


def seed_for(*purpose: object) -> int:
    """Return a seed for one purpose, such as an epoch of a fold.

    Each purpose has its own stream of random numbers. So folds can be trained in any order, on different machines, and
    resumed at any step, with the same result.
    """
    return int(fingerprint(*purpose), 16) >> 1         # torch takes 63 bits without a sign

"""The exception family of this project, shared with `tagging_lite`."""
from tagging_lite.errors import SoundError, TaggingError, shorten

__all__ = ["SoundError", "TaggingError", "shorten"]

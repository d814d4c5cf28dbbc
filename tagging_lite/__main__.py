"""python -m tagging_lite MODEL.onnx PATH..."""
import argparse
import sys
from functools import partial
from pathlib import Path

from tagging_lite.command import add_arguments, tag_paths
from tagging_lite.console import flush_stdout, prepare_streams
from tagging_lite.errors import TaggingError
from tagging_lite.onnx import load_onnx

if __name__ == "__main__":
    prepare_streams()
    parser = argparse.ArgumentParser(prog="python -m tagging_lite", description="Tag sound files.")
    parser.add_argument("model", type=Path, help="Exported model, written by tools.export.")
    add_arguments(parser)
    args = parser.parse_args()
    try:
        sys.exit(tag_paths(partial(load_onnx, args.model), args))
    except TaggingError as error:
        parser.exit(2, f"error: {error}\n")        # code 1: some files could not be tagged
    except BrokenPipeError:         # `| head` has enough lines
        flush_stdout()
        sys.exit(141)
    except OSError as error:
        flush_stdout()
        parser.exit(2, f"error: {error}\n")
    except KeyboardInterrupt:
        sys.exit(130)

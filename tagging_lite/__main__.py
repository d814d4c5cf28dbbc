"""python -m tagging_lite MODEL.onnx PATH..."""
import argparse
import os
import sys
from pathlib import Path

from tagging_lite.command import add_arguments, tag_paths
from tagging_lite.errors import TaggingError
from tagging_lite.onnx import load_onnx

if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="python -m tagging_lite", description="Tag sound files.")
    parser.add_argument("model", type=Path, help="Exported model, written by tools.export.")
    add_arguments(parser)
    args = parser.parse_args()
    try:
        sys.exit(tag_paths(load_onnx(args.model), args))
    except TaggingError as error:
        parser.exit(2, f"error: {error}\n")        # code 1: some files could not be tagged
    except BrokenPipeError:         # `| head` has enough lines
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())      # or the last flush fails
        sys.exit(141)
    except OSError as error:
        parser.exit(2, f"error: {error}\n")
    except KeyboardInterrupt:
        sys.exit(130)

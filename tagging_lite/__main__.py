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
    parser.add_argument("model", type=Path, help="what tools.export wrote")
    add_arguments(parser)
    args = parser.parse_args()
    try:
        sys.exit(tag_paths(load_onnx(args.model), args))
    except TaggingError as error:
        parser.exit(2, f"error: {error}\n")        # 1 says that some files could not be tagged
    except BrokenPipeError:         # `| head` has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())      # else the last flush complains
        sys.exit(141)
    except OSError as error:
        parser.exit(2, f"error: {error}\n")
    except KeyboardInterrupt:
        sys.exit(130)

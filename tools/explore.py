"""The old name of tools.eda. It still works in this version."""
import sys

from tagging.cli import run_script
from tools.eda import main

if __name__ == "__main__":
    print("note: tools.explore is now called tools.eda. The old name will be removed.", file=sys.stderr)
    run_script(main)

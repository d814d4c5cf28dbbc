"""Multi-label audio tagging: the library behind the four scripts and the tools.

The packages are listed in the order in which data flows through them. Each imports only from those before it:
utils -> data -> modeling -> evaluation -> training -> reporting. `make lint` checks this.
"""
import getpass
import os

from tagging_lite.cores import calm_threads

calm_threads()      # before torch is imported
try:
    getpass.getuser()
except (KeyError, OSError, ImportError):
    os.environ["LOGNAME"] = "unknown"       # in a container, for example. torch needs a name for its cache folder.

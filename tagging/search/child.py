"""Start a training that ends soon after its search, and only when no earlier training of the same trial is left.

    python child.py LOCK PARENT COMMAND...

This process becomes the command. It imports nothing of ours, so that it starts at once.
"""
import os
import signal
import sys

PR_SET_PDEATHSIG = 1


def main() -> None:
    lock, parent, *command = sys.argv[1:]
    if sys.platform == "linux":         # elsewhere the training ends at its next line of output
        import ctypes
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
        if os.getppid() != int(parent):         # the search was killed before that
            sys.exit(128 + signal.SIGTERM)
    import fcntl
    try:
        file = os.open(lock, os.O_RDWR | os.O_CREAT, 0o666)
        fcntl.flock(file, fcntl.LOCK_EX)        # the command holds it until it ends, also if its search is killed
    except OSError as error:
        sys.exit(f"error: {lock} could not be locked: {error.strerror}. Choose --models on a disk that supports locks.")
    os.set_inheritable(file, True)
    os.execv(command[0], command)


if __name__ == "__main__":
    main()

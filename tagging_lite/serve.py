"""HTTP service for an exported model.

    python -m tagging_lite.serve MODEL.onnx [--host 127.0.0.1] [--port 8000]

    curl --data-binary @dog.wav "localhost:8000/tags?top=5&timeline=true"         length, tags, tags of each second
    curl -F file=@dog.wav localhost:8000/tags                                     the same, as a form
    curl --data-binary @dog.wav "localhost:8000/tags.png?top=10" -o tags.png      figure of the probabilities
    curl --data-binary @dog.wav  localhost:8000/spectrogram.png  -o mel.png       log-mel spectrogram
    curl localhost:8000/health                                                    classes and sample rate of the model
    curl localhost:8000/ready                                                     200 when it takes sounds
    curl localhost:8000/metrics                                                   numbers for Prometheus

http://localhost:8000/docs describes the paths, their options and their answers.
"""
import argparse
import ipaddress
import logging
import math
import os
import re
import socket
import sys
from pathlib import Path

from tagging_lite.console import prepare_streams
from tagging_lite.cores import available_cores
from tagging_lite.errors import TaggingError
from tagging_lite.onnx import load_onnx
from tagging_lite.service.app import make_service
from tagging_lite.service.guard import Guard, Server
from tagging_lite.service.limits import Limits, Stop
from tagging_lite.service.observe import open_log


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of the service."""
    limits = Limits()
    parser.add_argument("model", type=Path, help="Exported model, written by tools.export.")
    parser.add_argument("--host", default="127.0.0.1",
                        help="Address of the service. 0.0.0.0 accepts connections from other machines. The default is "
                             "%(default)s.")
    parser.add_argument("--port", type=int, default=8000,
                        help="Port of the service. 0 takes a free one. The default is %(default)s.")
    parser.add_argument("--max-megabytes", type=float, default=limits.megabytes, metavar="MB",
                        help="Largest size of an upload. The default is %(default)g.")
    parser.add_argument("--max-seconds", type=float, default=limits.sound_seconds, metavar="SECONDS",
                        help="Greatest length of a sound. The default is %(default)g.")
    parser.add_argument("--max-wait", type=float, default=limits.wait_seconds, metavar="SECONDS",
                        help="Longest time of an upload, and again until its processing starts. The default is "
                             "%(default)g.")
    parser.add_argument("--max-stall", type=float, default=limits.stall_seconds, metavar="SECONDS",
                        help="Longest time without a request on a connection, for the header of a request, for an "
                             "upload that is slower than --min-rate, and for an answer that is not read. The default "
                             "is %(default)g.")
    parser.add_argument("--min-rate", type=float, default=limits.rate, metavar="BYTES",
                        help="Slowest upload, in bytes per second. The default is %(default)g.")
    parser.add_argument("--max-uploads", type=int, default=limits.uploads, metavar="N",
                        help="Largest number of uploads at the same time. Others wait. The default is %(default)d.")
    parser.add_argument("--max-per-address", type=int, default=limits.per_address, metavar="N",
                        help="Largest number of uploads of one address at the same time, and of its connections "
                             "without a request. 0 sets no limit. The default is %(default)d.")
    parser.add_argument("--batch-windows", type=int, default=limits.batch_windows, metavar="N",
                        help="Largest number of windows that the network computes together, of one or more requests. "
                             "The default is %(default)d.")
    parser.add_argument("--batch-wait", type=float, default=limits.batch_wait * 1000, metavar="MS",
                        help="Longest time that windows wait for those of other requests, in milliseconds. The "
                             "default is %(default)g.")
    parser.add_argument("--allow-origin", action="append", default=[], metavar="ORIGIN",
                        help="Web pages of this origin, such as https://example.org, may use the service. * allows all "
                             "pages. The option can be repeated.")
    parser.add_argument("--proxy", default="", metavar="ADDRESSES",
                        help="Addresses of proxies, separated by commas. The client's address is then the one that the "
                             "proxy gives in X-Forwarded-For. Without this option the header is ignored.")
    parser.add_argument("--access-log", default="-", metavar="FILE",
                        help="File to which a line of JSON is appended for each request. - is stdout, the default.")


def check(args: argparse.Namespace) -> None:
    """
    Raises:
        TaggingError: an option is out of its range.
    """
    for name in ("max_megabytes", "max_seconds", "max_wait", "max_stall"):
        if not 0 < getattr(args, name) < math.inf:
            raise TaggingError(f"--{name.replace('_', '-')} must be a number above 0.")
    for name, least in (("min_rate", 0), ("batch_wait", 0), ("max_per_address", 0), ("max_uploads", 1),
                        ("batch_windows", 1)):
        if not least <= getattr(args, name) < math.inf:
            raise TaggingError(f"--{name.replace('_', '-')} must be {least} or more.")
    if not 0 <= args.port <= 65535:
        raise TaggingError("--port must be from 0 to 65535.")
    for origin in args.allow_origin:
        if not re.fullmatch(r"\*|null|[a-z][a-z0-9+.-]*://[^/\s]+", origin):
            raise TaggingError(f"--allow-origin {origin} is no origin. Give the scheme and the host of the page, such "
                               "as https://example.org, without a path.")
    for address in args.proxy.split(",") if args.proxy not in ("", "*") else []:
        try:        # uvicorn would take any other text as the name of a proxy that never calls
            ipaddress.ip_network(address.strip())
        except ValueError as error:
            raise TaggingError(f"--proxy {address.strip()} is no address: {error}. Give the IP address or the network "
                               "of the proxy, such as 10.0.0.1 or 10.0.0.0/24.") from error


def listen(host: str, port: int) -> socket.socket:
    """Take a port.

    Raises:
        TaggingError: it is used, or the host is not an address of this machine.
    """
    try:
        # asyncio sends answers at once (TCP_NODELAY) only if the socket has the protocol, not 0.
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM,
                                                         flags=socket.AI_PASSIVE)[0]
        listener = socket.socket(family, kind, protocol)
        if os.name == "posix":      # on Windows, the option would share a used port
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
        # At once: two services that start together could otherwise both bind the port.
        listener.listen(2048)
    except (OSError, UnicodeError) as error:
        reason = getattr(error, "strerror", None) or error
        raise TaggingError(f"--host {host} --port {port} cannot be used: {reason}. Choose another port, or an address "
                           "of this machine.") from error
    return listener


def main() -> None:
    prepare_streams()
    parser = argparse.ArgumentParser(prog="python -m tagging_lite.serve", description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    add_arguments(parser)
    args = parser.parse_args()
    limits = Limits(args.max_megabytes, args.max_seconds, args.max_wait, args.max_stall, args.min_rate,
                    args.max_uploads, args.max_per_address, batch_windows=args.batch_windows,
                    batch_wait=args.batch_wait / 1000)
    stop = Stop()
    try:
        check(args)
        log = open_log(args.access_log)
        tagger = load_onnx(args.model, threads=available_cores())
        listener = listen(args.host, args.port)
        service = make_service(tagger, args.model.name, limits, stop, log, args.allow_origin)
    except TaggingError as error:
        parser.exit(2, f"error: {error}\n")
    guard = Guard(limits, stop, not args.proxy, lambda reason: service.metrics.closed.labels(reason).inc())
    service.metrics.connections.set_function(lambda: len(guard.connections))
    host, port = listener.getsockname()[:2]
    print(f"http://{f'[{host}]' if ':' in host else host}:{port}  until Ctrl-C", file=sys.stderr, flush=True)
    Server(service.app, limits, stop, guard, args.proxy).run([listener])
    if service.processing.running:
        # The threads cannot be interrupted, and Python would wait for them. Their clients have got an answer.
        logging.shutdown()
        sys.stdout.flush()
        os._exit(0)


if __name__ == "__main__":
    main()

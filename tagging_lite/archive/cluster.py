"""Tag on the nodes of a Ray cluster with Ray Data: one actor for each device writes whole parts of `--out`.

Ray starts an actor again if its node is lost, and gives its part to another one. A part that is written twice has the
same content and the same name.
"""
import logging
import math
import os
import socket
from collections.abc import Callable, Iterator
from dataclasses import asdict
from itertools import islice
from pathlib import Path
from typing import Any

from tagging_lite.archive.folder import OutputFolder, Part
from tagging_lite.archive.process import ROOT, Source
from tagging_lite.archive.run import Job, tag_parts
from tagging_lite.archive.shards import Shard
from tagging_lite.archive.sources import SavedNames
from tagging_lite.cores import available_cores
from tagging_lite.errors import TaggingError
from tagging_lite.progress import Progress
from tagging_lite.tagger import Tagger

LOCAL = "local"


def tag_with_ray(address: str, folder: OutputFolder, names: SavedNames, load: Callable[[], Tagger], job: Job,
                 device: str, progress: Progress) -> None:
    """Tag the files that are not done on a cluster.

    Args:
        address: as for `--ray`.
        device: of the tagger here, cpu or cuda; the nodes use the same.
    Raises:
        TaggingError: Ray is not installed, the cluster cannot be reached, or it has no such device.
    """
    ray = connect(address)
    nodes = [node for node in ray.nodes() if node["Alive"]]
    count = len(nodes) if device == "cpu" else int(ray.cluster_resources().get("GPU", 0))
    if not count:
        raise TaggingError("The cluster has no GPU. Add a node with one, or use --device cpu.")
    items = list(cut_items(folder, names, job.part_files))
    if not items:
        return
    # An actor that moves to another node must find a core there, so it reserves one only. It uses all.
    results = ray.data.from_items(items, override_num_blocks=len(items)).map(
        PartTagger, fn_constructor_args=(Path.cwd(), folder.path.absolute(), load, job),
        compute=ray.data.ActorPoolStrategy(min_size=1, max_size=min(count, len(items))),
        num_cpus=1, num_gpus=0 if device == "cpu" else 1)
    try:
        for row in results.iter_rows():
            part = Part(**row)
            folder.add(part)
            progress.add(part.seconds, part.failed, part.stop - part.start)
    except ray.exceptions.RayError as error:
        reason = str(error).strip().splitlines()[-1]
        raise TaggingError(f"A node of the cluster failed ({reason}). All nodes must see this repository, the files, "
                           "the model and --out under the same names. Then run the same command again.") from error


def connect(address: str) -> Any:
    """Connect to a cluster, or start one on this machine, and return the module ray."""
    try:
        import ray
        import ray.data
    except ImportError as error:
        raise TaggingError("--ray needs the package ray with its part data, which is not installed. Install it with "
                           '`pip install "ray[data]"`.') from error
    if not ray.is_initialized():
        try:
            host, colon, port = address.rpartition(":")
            if colon and port.isdigit() and "/" not in host:
                socket.create_connection((host.strip("[]"), int(port)), 10).close()     # Ray would wait for minutes
            ray.init(address=None if address == LOCAL else address, log_to_driver=False, logging_level=logging.ERROR,
                     runtime_env={"env_vars": {"PYTHONPATH": os.pathsep.join(
                         [str(ROOT), os.environ.get("PYTHONPATH", "")])}})
        except (OSError, ValueError, RuntimeError) as error:
            raise TaggingError(f"--ray {address}: the cluster cannot be reached ({error}). Start it with `ray start`, "
                               "or write --ray local.") from error
    ray.data.DataContext.get_current().enable_progress_bars = False
    logging.getLogger("ray.data").setLevel(logging.ERROR)
    return ray


def cut_items(folder: OutputFolder, names: SavedNames, size: int) -> Iterator[dict[str, Any]]:
    """Yield the parts that are left: their number, the place of their first file, and its names."""
    sources, number = folder.sources(names), folder.next_number()
    first = next(sources, None)
    while first:
        items, following = [first], None
        for source in islice(sources, size - 1):
            if source.place != items[-1].place + 1:     # the files between are done
                following = source
                break
            items.append(source)
        # Zero bytes between them: a name need not be UTF-8, which a table of Ray requires.
        yield {"part": number, "start": first.place, "names": b"\0".join(os.fsencode(item.name) for item in items)}
        first, number = following or next(sources, None), number + 1


class PartTagger:
    """An actor that loads the model once, and then tags part after part.

    Args:
        home: folder to which the names are relative.
        out: folder of `--out`.
    """

    def __init__(self, home: Path, out: Path, load: Callable[[], Tagger], job: Job):
        os.chdir(home)
        os.environ["OMP_NUM_THREADS"] = str(available_cores())      # Ray sets 1, and torch reads it when it is imported
        self.folder, self.job = OutputFolder(out, Shard()), job
        self.choice = job.choice(load())

    def __call__(self, item: dict[str, Any]) -> dict[str, Any]:
        """Write a part, and return its fields."""
        names = map(os.fsdecode, item["names"].split(b"\0"))
        sources = [Source(item["start"] + place, name) for place, name in enumerate(names)]
        part, = tag_parts(self.folder, sources, self.choice, self.job, item["part"], self.job.processes(len(sources)),
                          part_seconds=math.inf)
        return asdict(part)

"""Tagging on a cluster of two nodes, one of which is killed on the way."""
import threading
import time
from functools import partial
from pathlib import Path

import archive_case
import pandas as pd
import pytest
from archive_case import arguments, call, write_sounds

from tagging_lite.command import tag_paths
from tagging_lite.errors import TaggingError

pytestmark = pytest.mark.slow


@pytest.fixture
def cluster(monkeypatch):
    """Two nodes of one core each. Yields the cluster and its second node."""
    ray = pytest.importorskip("ray")
    pytest.importorskip("ray.data")
    from ray.cluster_utils import Cluster
    monkeypatch.setenv("RAY_AUTH_MODE", "disabled")
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parent))     # where the actors find the model
    made = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
    second = made.add_node(num_cpus=1)
    yield made, second
    ray.shutdown()
    made.shutdown()


def test_a_lost_node_changes_nothing(tmp_path, cluster, monkeypatch):
    made, second = cluster
    names = write_sounds(tmp_path / "sounds", 60, seconds=0.3)
    assert call(tmp_path / "sounds", "--out", tmp_path / "expected", "--part", "3") == 0
    monkeypatch.chdir(tmp_path)
    out = tmp_path / "out"
    killed = []

    def kill():
        while len(list(out.glob("part*"))) < 3:
            time.sleep(0.05)
        made.remove_node(second, allow_graceful=False)
        killed.append(len(list(out.glob("part*"))))

    thread = threading.Thread(target=kill)
    thread.start()
    words = arguments("sounds", "--out", "out", "--part", "3", "--ray", made.address)
    code = tag_paths(partial(archive_case.load_slowly, 0.3), words)
    thread.join()
    assert code == 0 and 3 <= killed[0] < 18
    found, expected = pd.read_parquet(out), pd.read_parquet(tmp_path / "expected")
    found["path"] = [str(tmp_path / path) for path in found.path]
    pd.testing.assert_frame_equal(found, expected)
    assert list(found.path.unique()) == names
    assert not list(out.glob("_part*"))
    assert call("sounds", "--out", "out") == 0          # everything is done


def test_a_cluster_that_cannot_be_reached_is_named(tmp_path, monkeypatch):
    pytest.importorskip("ray")
    names = write_sounds(tmp_path / "sounds", 1)
    with pytest.raises(TaggingError, match=r"--ray 127.0.0.1:1: the cluster cannot be reached"):
        call(*names, "--out", tmp_path / "out", "--ray", "127.0.0.1:1")

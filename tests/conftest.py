"""One snapshot for the whole run, built from the repository's own sources."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
from fastapi.testclient import TestClient
from pyoxigraph import RdfFormat, parse

from api.app import create_app
from kg.content import data_dir
from kg.load import find_sources
from kg.serving import Service
from kg.snapshot import Build, Manifest, build, current, read_manifest, sources_digest, write
from kg.store import EmbeddedStore
from kg.worker import Limits


@pytest.fixture(scope="session")
def built() -> Build:
    """The build of the repository's sources, or what ``STRATA_TEST_SNAPSHOT`` holds of just these.

    .ci/run builds before it tests; whoever sets the variable vouches that the code is the same too.
    """
    ready = os.environ.get("STRATA_TEST_SNAPSHOT")
    if not ready:
        return build()
    manifest = read_manifest(current(Path(ready)))
    assert manifest.sources == sources_digest(find_sources()), f"{ready} was built from other sources: build it again"
    quads = list(parse(path=str(current(Path(ready)) / "dataset.nq"), format=RdfFormat.N_QUADS))
    return Build([], quads, manifest.sources, manifest.seconds)


@pytest.fixture(scope="session")
def home(built: Build, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A home folder with that build as the served snapshot."""
    folder = tmp_path_factory.mktemp("home")
    write(built, folder)
    return folder


@pytest.fixture(scope="session")
def manifest(home: Path) -> Manifest:
    return read_manifest(current(home))


@pytest.fixture(scope="session")
def store(home: Path) -> EmbeddedStore:
    return EmbeddedStore(current(home))


@pytest.fixture(scope="session")
def service(home: Path) -> Iterator[Service]:
    found = Service(home, workers=2, limits=Limits(seconds=5, rows=500))
    yield found
    found.close()


@pytest.fixture(scope="session")
def client(service: Service) -> Iterator[TestClient]:
    with TestClient(create_app(service), base_url="http://strata.test") as found:
        yield found


@pytest.fixture(scope="session")
def get(client: TestClient) -> Callable[..., Any]:
    """GET a path and read its JSON; fails on any other status than 200."""

    def fetch(path: str, **parameters: Any) -> Any:
        answer = client.get(path, params=parameters)
        assert answer.status_code == 200, answer.text
        return answer.json()

    return fetch


@pytest.fixture
def data_copy(tmp_path: Path) -> Path:
    """A copy of the data folder that a test may spoil."""
    target = tmp_path / "data"
    shutil.copytree(data_dir(), target)
    return target


def free_port() -> int:
    """A port of the loopback that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def wait_for(url: str, process: subprocess.Popen[bytes], seconds: float = 60) -> None:
    """Wait until a server that was started answers."""
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        assert process.poll() is None, f"the server of {url} ended with {process.returncode}"
        with contextlib.suppress(httpx.HTTPError):
            if httpx.get(url, timeout=5).status_code < 500:
                return
        time.sleep(0.1)
    raise AssertionError(f"{url} did not answer in {seconds} s")


@dataclass
class Server:
    """A ``strata serve`` of its own, on the loopback."""

    url: str
    process: subprocess.Popen[bytes]
    log: Path

    def lines(self) -> list[dict[str, Any]]:
        """Its log so far."""
        found = []
        for line in self.log.read_text("utf-8").splitlines():
            with contextlib.suppress(ValueError):
                found.append(json.loads(line))
        return found


@contextlib.contextmanager
def serving(home: Path, log: Path, **settings: object) -> Iterator[Server]:
    """Start ``strata serve`` on the snapshot of a home folder, and end it."""
    port = free_port()
    environment = {
        **os.environ,
        "STRATA_HOME": str(home),
        **{f"STRATA_{k.upper()}": str(v) for k, v in settings.items()},
    }
    command = [sys.executable, "-m", "kg", "serve", "--as-is", "--port", str(port)]
    with log.open("wb") as stderr:
        process = subprocess.Popen(command, env=environment, stdout=stderr, stderr=stderr)
    url = f"http://127.0.0.1:{port}"
    try:
        wait_for(f"{url}/ready", process)
        yield Server(url, process, log)
    finally:
        process.terminate()
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


@pytest.fixture(scope="session")
def server(home: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server with tight bounds, for who would harm it."""
    log = tmp_path_factory.mktemp("server") / "log"
    with serving(home, log, query_seconds=1, query_rows=500, workers=2, body_seconds=2, idle_seconds=3) as found:
        yield found

"""One snapshot for the whole run, built from the repository's own sources."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient

from api.app import create_app
from kg.content import data_dir
from kg.serving import Service
from kg.snapshot import Build, Manifest, build, current, write
from kg.store import EmbeddedStore
from kg.worker import Limits


@pytest.fixture(scope="session")
def built() -> Build:
    """The build of the repository's sources."""
    return build()


@pytest.fixture(scope="session")
def home(built: Build, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A home folder with that build as the served snapshot."""
    folder = tmp_path_factory.mktemp("home")
    write(built, folder)
    return folder


@pytest.fixture(scope="session")
def manifest(home: Path) -> Manifest:
    from kg.snapshot import read_manifest

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

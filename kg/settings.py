"""Every setting of the service, in one model: from the environment, or from a file.

A setting ``query_seconds`` is the variable ``STRATA_QUERY_SECONDS``, or the line
``query_seconds = 5`` in the TOML file that ``STRATA_SETTINGS`` names (``strata.toml`` in
the working folder when it names none). The environment wins.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Literal

from pydantic import Field, SecretStr, ValidationError
from pydantic_settings import (
    BaseSettings,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    TomlConfigSettingsSource,
)

from kg.errors import SettingsError


class Settings(BaseSettings):
    """What an operator may set; every field has a default that is safe in public."""

    model_config = SettingsConfigDict(env_prefix="STRATA_", extra="ignore", env_ignore_empty=True)

    home: Path = Field(Path(".strata"), description="Folder of snapshots.")
    host: str = Field("127.0.0.1", description="Address to listen on.")
    port: int = Field(8000, ge=0, le=65535, description="Port to listen on.")
    processes: int = Field(1, ge=1, le=64, description="HTTP processes that share the port and the snapshot.")
    shutdown_seconds: int = Field(30, ge=1, description="How long requests that run may take to end at shutdown.")
    public_url: str = Field("", description="Address under which the service is known, for its own description.")

    workers: int = Field(2, ge=1, le=64, description="Query processes of each HTTP process.")
    query_seconds: float = Field(10.0, gt=0, description="Wall clock of one SPARQL query.")
    query_rows: int = Field(10_000, ge=1, description="Rows or triples of one SPARQL answer.")
    query_memory_mb: int = Field(2048, ge=256, description="Address space of one query process.")
    query_answer_mb: int = Field(64, ge=1, description="Bytes of one SPARQL answer.")
    query_waiting: int = Field(32, ge=0, description="SPARQL queries that may wait for a process.")
    query_waiting_per_client: int = Field(8, ge=0, description="The same, of one client.")
    sandbox: Literal["auto", "require", "off"] = Field(
        "auto", description="Second wall around query processes: as the system allows, required, or none."
    )

    max_url: int = Field(16_000, ge=1000, le=60_000, description="Characters of a request's address.")
    max_body: int = Field(200_000, ge=1000, description="Bytes of a request's body.")
    body_seconds: float = Field(10.0, gt=0, description="How long a request's body may take to arrive.")
    max_requests: int = Field(200, ge=1, description="Requests in work at one time in one process.")
    computing: int = Field(
        4, ge=1, le=64, description="Answers of named queries worked out at one time in one process."
    )
    idle_seconds: int = Field(
        10, ge=1, description="How long the head of a request may take, and a connection wait for the next."
    )
    rate_per_minute: int = Field(0, ge=0, description="Requests of one client in a minute; 0 means no limit.")
    trusted_proxies: str = Field("127.0.0.1", description="Proxies whose X-Forwarded-For is believed; see uvicorn.")
    cache_mb: int = Field(64, ge=0, description="Memory for answers of the snapshot in service; 0 turns it off.")

    endpoint: str | None = Field(None, description="A SPARQL 1.1 endpoint to ask instead of the embedded store.")
    graph_store: str | None = Field(None, description="Graph Store Protocol address, for `strata load`.")
    endpoint_user: str | None = Field(None, description="User at that endpoint.")
    endpoint_password: SecretStr | None = Field(None, description="Password at that endpoint.")
    endpoint_seconds: float = Field(30.0, gt=0, description="How long to wait for its answer.")
    endpoint_tries: int = Field(3, ge=1, le=10, description="How often to ask it before giving up.")

    log_format: Literal["json", "text"] = Field("json", description="Log lines as JSON, or for people.")
    log_level: Literal["debug", "info", "warning", "error"] = Field("info", description="What is logged.")

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Arguments before environment before file."""
        file = Path(os.environ.get("STRATA_SETTINGS", "strata.toml"))
        return init_settings, env_settings, TomlConfigSettingsSource(settings_cls, file)


def load_settings() -> Settings:
    """The settings in force.

    Raises:
        SettingsError: a value is not usable, or the file that ``STRATA_SETTINGS`` names is
            missing, is not TOML, or has a setting that does not exist.
    """
    named = os.environ.get("STRATA_SETTINGS")
    if named and not Path(named).is_file():
        raise SettingsError(f"STRATA_SETTINGS={named}: no such file. Name a TOML file, or unset it.")
    try:
        _refuse_unknown(Path(named or "strata.toml"))
        return Settings()
    except ValidationError as error:
        lines = [f"STRATA_{str(e['loc'][0]).upper()}: {e['msg']} (given: {e['input']!r})." for e in error.errors()]
        raise SettingsError("\n".join(lines)) from error
    except ValueError as error:
        raise SettingsError(f"{named or 'strata.toml'}: not TOML ({error}). Mend the file.") from error


def _refuse_unknown(file: Path) -> None:
    """A misspelt setting in a file would otherwise be ignored in silence."""
    import tomllib

    if not file.is_file():
        return
    unknown = sorted(set(tomllib.loads(file.read_text(encoding="utf-8"))) - set(Settings.model_fields))
    if unknown:
        raise SettingsError(f"{file}: unknown settings {', '.join(unknown)}. docs/deploy.md lists all of them.")

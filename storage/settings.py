"""Settings, read once at the door and frozen. Every variable has the prefix `STAGEBEAM_`.

The command line is the door: it calls `read_settings` and passes the result on. Nothing else reads the
environment. An unknown variable with the prefix or an unsafe value refuses to start.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Literal

from pydantic import Field, SecretStr, ValidationError
from pydantic_settings import BaseSettings, SettingsConfigDict

from reasoning.errors import BadInput, nearest

PREFIX = "STAGEBEAM_"


class Settings(BaseSettings):
    """Everything that can be set. Defaults are those of the embedded stack on loopback."""

    model_config = SettingsConfigDict(env_prefix=PREFIX, frozen=True, extra="forbid", validate_default=True)

    data_dir: Path = Path("data")
    """Folder of the embedded stack: database, objects, broker, logs."""
    database_url: str = ""
    """SQLAlchemy URL (`postgresql+psycopg://...` or `sqlite:///...`); empty means SQLite in `data_dir`."""
    broker_url: str = ""
    """`redis://...` or `redis+socket://...`; empty means the embedded Valkey of `data_dir`."""
    object_store: str = ""
    """`s3://bucket/prefix` or a folder; empty means `data_dir`/objects."""

    s3_endpoint_url: str | None = None
    """Address of an S3 server other than Amazon's."""
    s3_region: str | None = None
    """Region of the bucket; unset leaves it to the S3 library."""
    s3_access_key_id: SecretStr | None = None
    """With the next one; unset leaves it to the S3 library (its environment, profile or machine role)."""
    s3_secret_access_key: SecretStr | None = None
    """Secret half of the key above."""
    s3_path_style: bool = True
    """Bucket in the path, as most servers want it, in place of the host name."""
    s3_checksums: Literal["when_supported", "when_required"] = "when_supported"
    """`when_required` for servers that refuse the checksums of newer S3 clients."""
    s3_multipart_bytes: int = Field(default=16 * 2**20, ge=5 * 2**20)
    """Objects above this size go up in parts."""

    host: str = "127.0.0.1"
    """Address to listen on."""
    port: int = Field(default=8000, ge=0, le=65535)
    """Port to listen on; 0 takes a free one."""
    url: str = "http://127.0.0.1:8000"
    """Where the command line finds the API."""
    api_key: SecretStr | None = None
    """Bearer token that the command line sends."""
    secret_key: SecretStr | None = None
    """Signs sessions and cursors; needed when `host` is not loopback."""
    path_prefix: str = ""
    """Set when a proxy serves the API and pages under a path."""
    read_only: bool = False
    """Pages and API refuse every change."""
    price_input: float | None = Field(default=None, ge=0)
    """Price of a million prompt tokens, for the cost that pages show of a job; unset shows none."""
    price_output: float | None = Field(default=None, ge=0)
    """Price of a million generated tokens, likewise; discarded candidates and judges count."""
    environment: str = Field(default="", max_length=30)
    """Name shown in the head of every page, such as `staging`; one that begins with `prod` is shown in red."""

    model: str = "demo"
    """What workers load: `demo`, `scripted`, a folder, a hub id or `openai:BASE_URL#MODEL`."""
    device: str = "auto"
    """Device of the model: `auto` (a GPU where there is one), `cpu`, `cuda`, `cuda:1` ..."""
    dtype: str = "auto"
    """Number type of the weights: `auto`, `bfloat16`, `float16` or `float32`."""
    slots: int = Field(default=64, ge=1, le=4096)
    """Calls that a worker has in hand at most."""
    engine_options: str = ""
    """Further settings of the engine as JSON: cache bytes, quantization, faults of the scripted engine."""
    worker_name: str = ""
    """First part of the id of a worker; empty means `worker`. Host, process and start follow."""

    lease_s: float = Field(default=30.0, gt=0)
    """A worker's claim on a call; renewed at a third of it."""
    heartbeat_s: float = Field(default=5.0, gt=0)
    """Seconds between two signs of life of a worker."""
    visibility_timeout_s: float = Field(default=60.0, gt=0)
    """Seconds after which the broker hands out again a message that nobody acknowledged."""
    window_factor: float = Field(default=2.0, gt=0)
    """Queries admitted per slot of the live workers."""
    window_min: int = Field(default=64, ge=1)
    """Queries admitted while no worker is known."""
    call_timeout_s: float = Field(default=600.0, gt=0)
    """Seconds one call may take in the engine."""
    reconcile_s: float = Field(default=2.0, gt=0)
    """Seconds between two looks for what a death or a lost message left behind."""
    resend_s: float = Field(default=5.0, gt=0)
    """A queued call whose message is older than this and whose queue is empty is sent again."""
    retention_s: float = Field(default=7 * 86400.0, gt=0)
    """How long calls stay rows after their job ended, before they are folded into trace parts."""

    image_roots: list[Path] = Field(default_factory=list)
    """Folders from which the server itself may read images that a line names by path."""
    sql_connections: dict[str, SecretStr] = Field(default_factory=dict)
    """Databases that datasets may be read from, as JSON: name to SQLAlchemy URL of a role that may only read."""
    schedules_file: Path | None = None
    """Definitions of datasets and schedules in YAML, applied when the scheduler starts."""
    image_urls: bool = False
    """Whether http(s) image addresses are fetched (never private networks)."""
    max_line_bytes: int = Field(default=32 * 2**20, ge=1024)
    """Longest line of an input file."""
    max_image_bytes: int = Field(default=20 * 2**20, ge=1024)
    """Largest image, in bytes."""
    max_image_pixels: int = Field(default=64_000_000, ge=1)
    """Largest image, width times height, told before it is decoded."""
    max_lines: int = Field(default=10_000_000, ge=1)
    """Most lines of an input file."""
    max_upload_bytes: int = Field(default=20 * 2**30, ge=1024)
    """Largest file that can be uploaded."""

    strict_models: bool = False
    """Refuse a model name that no worker serves, in place of answering with `model`."""
    redirect_downloads: bool | None = None
    """Whether large files are handed out by the S3 server itself; unset means unless it has an endpoint of its own."""
    webhook_url: str = ""
    """Where the ends of jobs are told, unless a job names an address of its own."""
    webhook_secret: SecretStr | None = None
    """Signs what is sent to `webhook_url`: `whsec_` and base64 of the key."""
    webhook_private: bool = False
    """Whether webhooks may go to private networks; loopback ones may while the server itself is on loopback."""

    log_level: Literal["debug", "info", "warning", "error"] = "info"
    """Least severe message that is logged."""
    log_json: bool = False
    """One JSON object a line in place of text."""

    @property
    def effective_database_url(self) -> str:
        return self.database_url or f"sqlite:///{self.data_dir.resolve() / 'stagebeam.db'}"

    @property
    def effective_object_store(self) -> str:
        return self.object_store or str(self.data_dir.resolve() / "objects")

    @property
    def loopback(self) -> bool:
        return self.host in ("127.0.0.1", "localhost", "::1")


def read_settings(environ: Mapping[str, str], **overrides: object) -> Settings:
    """The settings of an environment; `overrides` (from command-line flags) win.

    Raises:
        BadInput: a variable with the prefix is unknown (the nearest valid name is given) or has a bad value.
    """
    known = {PREFIX + name.upper() for name in Settings.model_fields}
    for name in environ:
        if name.startswith(PREFIX) and name not in known:
            raise BadInput(
                f"unknown setting {name}.{nearest(name, known)} `stagebeam settings show` lists all.",
                code="unknown_setting",
                field=name,
            )
    try:
        return Settings(**overrides)  # type: ignore[arg-type]
    except ValidationError as error:
        first = error.errors()[0]
        name = PREFIX + "_".join(str(part) for part in first["loc"][:1]).upper()
        raise BadInput(f"{name}: {first['msg']}.", code="invalid_setting", field=name) from None

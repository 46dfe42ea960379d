"""One installation on one machine: the paths of its files, and the secrets that it created."""

from __future__ import annotations

import json
import os
import secrets
import tempfile
from dataclasses import dataclass
from functools import cached_property
from hashlib import blake2b
from pathlib import Path

from controlplane.paths import default_home

MAX_SOCKET_PATH = 107
"""Bytes that fit into a unix socket's address (Linux, unix(7))."""


@dataclass(frozen=True)
class Instance:
    """The embedded default's data directory: SQLite, the Valkey socket, keys, first credentials."""

    data_dir: Path

    @classmethod
    def from_environment(cls) -> Instance:
        """The instance of `SLUICE_DATA_DIR`, else of `var/` in the checkout or, installed, in the working directory."""
        return cls(Path(os.environ.get("SLUICE_DATA_DIR") or default_home() / "var").expanduser().absolute())

    @property
    def database_path(self) -> Path:
        return self.data_dir / "sluice.sqlite3"

    @property
    def credentials_path(self) -> Path:
        """Where the first start leaves the administrator's password and the platform key (mode 600)."""
        return self.data_dir / "credentials.txt"

    @property
    def secrets_path(self) -> Path:
        return self.data_dir / "secrets.json"

    @property
    def socket_path(self) -> Path:
        """The Valkey socket; in a short runtime directory where the data directory's path is too long for one."""
        path = self.data_dir / "valkey.sock"
        if len(os.fsencode(path)) <= MAX_SOCKET_PATH:
            return path
        name = blake2b(os.fsencode(self.data_dir), digest_size=8).hexdigest()
        return Path(tempfile.gettempdir()) / f"sluice-{os.getuid()}-{name}" / "valkey.sock"

    @property
    def log_dir(self) -> Path:
        return self.data_dir / "logs"

    @property
    def pid_dir(self) -> Path:
        """One file for each process of a running `up`."""
        return self.data_dir / "pids"

    @property
    def failing_path(self) -> Path:
        """The file in which a running `up` names its processes that keep dying."""
        return self.data_dir / "failing.json"

    @property
    def redis_url(self) -> str:
        return f"unix://{self.socket_path}"

    @cached_property
    def secrets(self) -> dict[str, list[str] | str]:
        """`secret_key` and `credential_keys` as kept in the data directory; empty before the first `up`."""
        try:
            secrets: dict[str, list[str] | str] = json.loads(self.secrets_path.read_text())
            return secrets
        except FileNotFoundError:
            return {}

    def create_secrets(self) -> None:
        """Create the instance's keys once; an existing file stays as it is."""
        from cryptography.fernet import Fernet

        if self.secrets_path.exists():
            return
        self.data_dir.mkdir(parents=True, exist_ok=True, mode=0o700)
        made = {"secret_key": secrets.token_urlsafe(50), "credential_keys": [Fernet.generate_key().decode()]}
        temporary = self.secrets_path.with_suffix(f".{os.getpid()}")
        with os.fdopen(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
            json.dump(made, file)
        try:
            # A link fails where the name exists: of two first starts at once, one wins and both read the same keys.
            os.link(temporary, self.secrets_path)
        except FileExistsError:
            pass
        finally:
            temporary.unlink()
        self.__dict__.pop("secrets", None)

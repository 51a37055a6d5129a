"""What all migrations that leave a host may send together: as its configuration says, until a controller sets it."""

import logging
from pathlib import Path

import msgspec
from msgspec.structs import replace

from vferry.host.configuration import least_bandwidth
from vferry.host.durable import sync_directory, write_durably
from vferry.model.host import MigrationEndpoint
from vferry.model.problem import Exit, Problem

log = logging.getLogger("vferry.agent")

FILE = "bandwidth.json"


class HostLimit:
    """What is set is kept in a file, and wins over the configuration until it is taken back."""

    def __init__(self, configured: MigrationEndpoint, directory: Path) -> None:
        self._configured = configured
        self._path = directory / FILE
        self._set = self._read()

    def most(self) -> int | None:
        """Bytes per second; None is no limit."""
        return self._configured.bandwidth if self._set is None else self._set or None

    def endpoint(self) -> MigrationEndpoint:
        """What is configured, with the limit that holds."""
        return replace(
            self._configured,
            bandwidth=self.most(),
            bandwidth_set=self._set is not None,
            bandwidth_configured=self._configured.bandwidth,
        )

    def set(self, bandwidth: int | None) -> bool:
        """Sets bytes per second, 0 for no limit; None takes back what was set. Whether that is new.

        Problem ``bandwidth-too-small``.
        """
        least = least_bandwidth(self._configured.slots)
        if bandwidth and bandwidth < least:
            raise Problem(
                "bandwidth-too-small",
                f"{bandwidth} bytes per second are less than 1 MiB/s for each of {self._configured.slots} slots",
                f"Allow {least} at least, or lower slots in the agent's configuration",
                exit=Exit.REFUSED,
                least=least,
            )
        if bandwidth == self._set:
            return False
        if bandwidth is None:
            self._path.unlink(missing_ok=True)
            sync_directory(self._path.parent)
        else:
            write_durably(self._path, msgspec.json.encode(bandwidth))
        self._set = bandwidth
        return True

    def _read(self) -> int | None:
        try:
            return msgspec.json.decode(self._path.read_bytes(), type=int)
        except FileNotFoundError:
            return None
        except (OSError, msgspec.DecodeError) as error:
            log.error("%s cannot be read, the configuration's limit of bandwidth holds: %s", self._path, error)
            return None

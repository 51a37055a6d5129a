"""Certificates for one trial, signed by an authority of its own, where QEMU and the gateways find them."""

from pathlib import Path
from typing import Any, NamedTuple

from vferry.controller.authority import Authority
from vferry.host.certificates import Certificates
from vferry.host.certificates_tls import TlsFiles, host_files
from vferry.trial.link import ADDRESSES

NAMES = ("source", "destination")
ENDPOINTS = ("client", "server")


class Identity(NamedTuple):
    """One side: its own name and the other one's, and its files."""

    name: str
    peer: str
    endpoint: str
    files: TlsFiles

    @property
    def gateway_options(self) -> list[str]:
        files = self.files
        options = ["--ca", files.ca, "--cert", files.certificate, "--key", files.key, "--peer", self.peer]
        return [str(option) for option in options]

    @property
    def qemu_object(self) -> dict[str, Any]:
        """What QEMU's `object-add` takes."""
        directory = str(self.files.ca.parent)
        return {"qom-type": "tls-creds-x509", "id": "tls", "dir": directory, "endpoint": self.endpoint}

    @property
    def qemu_parameters(self) -> dict[str, Any]:
        """What QEMU's `migrate-set-parameters` takes; the client checks the server's name."""
        return {"tls-creds": "tls"} | ({"tls-hostname": self.peer} if self.endpoint == "client" else {})


def issue(folder: Path) -> tuple[Identity, Identity]:
    """Make the files of source and destination below `folder`."""
    authority = Authority(folder / "authority")
    source, destination = (_identity(authority, folder, side) for side in range(2))
    return source, destination


def _identity(authority: Authority, folder: Path, side: int) -> Identity:
    name, endpoint = NAMES[side], ENDPOINTS[side]
    own = Certificates(host_files(folder / name), name)
    own.install(authority.sign(own.request(), name, ADDRESSES[side]), authority.ca_pem)
    files = own.files
    for path, link in ((files.ca, "ca-cert"), (files.certificate, f"{endpoint}-cert"), (files.key, f"{endpoint}-key")):
        (path.parent / f"{link}.pem").symlink_to(path)
    return Identity(name, NAMES[1 - side], endpoint, files)

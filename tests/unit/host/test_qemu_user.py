"""As whom libvirt runs QEMU: as its configuration says, and else as distributions have it."""

from pathlib import Path

import pytest

from vferry.host.qemu_user import qemu_user

PASSWD = "root:x:0:0::/root:/bin/sh\nlibvirt-qemu:x:64055:994::/:/bin/false\nkvmer:x:1003:994::/:/bin/false\n"


@pytest.mark.parametrize(
    ("conf", "passwd", "user"),
    [
        (None, PASSWD, 64055),
        ("", PASSWD, 64055),
        ("", PASSWD.replace("libvirt-qemu", "qemu"), 64055),
        ('#user = "root"\n', PASSWD, 64055),
        ('user = "kvmer"\n', PASSWD, 1003),
        ('user = "root"\nuser="kvmer"\n', PASSWD, 1003),
        ('user = "+1007"\n', PASSWD, 1007),
        ('user = "root"\n', PASSWD, None),
        ('user = "nobody-here"\n', PASSWD, None),
        ("", "", None),
    ],
)
def test_the_user(tmp_path: Path, conf: str | None, passwd: str, user: int | None) -> None:
    (tmp_path / "etc/libvirt").mkdir(parents=True)
    (tmp_path / "etc/passwd").write_text(passwd)
    if conf is not None:
        (tmp_path / "etc/libvirt/qemu.conf").write_text(conf)
    assert qemu_user(tmp_path) == user

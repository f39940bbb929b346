#!/usr/bin/env python3
"""Writes a docker-archive (docker load, podman load, ctr images import) with
two one-layer images made from the static busybox of this machine.

usage: image.py OUT.tar [BUSYBOX]
"""

import hashlib
import io
import json
import platform
import struct
import subprocess
import sys
import tarfile

IMAGES = (
    ("localhost/muxframe-test:latest", ["/bin/sh"]),
    # the sandbox ("pause") container of a CRI pod only has to stay
    ("localhost/muxframe-pause:latest", ["/bin/sleep", "2147483647"]),
)
ARCH = {
    "x86_64": "amd64",
    "aarch64": "arm64",
    "armv7l": "arm",
    "ppc64le": "ppc64le",
    "s390x": "s390x",
    "riscv64": "riscv64",
    "i686": "386",
}


def is_static(elf: bytes) -> bool:
    """No PT_INTERP program header."""
    if elf[:4] != b"\x7fELF":
        return False
    end = "<" if elf[5] == 1 else ">"
    if elf[4] == 2:
        (off,) = struct.unpack_from(end + "Q", elf, 32)
        size, num = struct.unpack_from(end + "HH", elf, 54)
    else:
        (off,) = struct.unpack_from(end + "I", elf, 28)
        size, num = struct.unpack_from(end + "HH", elf, 42)
    return all(struct.unpack_from(end + "I", elf, off + i * size)[0] != 3 for i in range(num))


def layer(busybox: str) -> bytes:
    with open(busybox, "rb") as f:
        elf = f.read()
    if not is_static(elf):
        sys.exit(f"{busybox} is not a static executable (install busybox-static)")
    applets = subprocess.run([busybox, "--list"], check=True, capture_output=True, text=True).stdout.split()
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.GNU_FORMAT) as tar:

        def add(name: str, kind: bytes = tarfile.REGTYPE, mode: int = 0o755, data: bytes = b"", link: str = "") -> None:
            info = tarfile.TarInfo(name)
            info.type, info.mode, info.size, info.linkname = kind, mode, len(data), link
            tar.addfile(info, io.BytesIO(data))

        for name in ("bin", "dev", "etc", "proc", "root", "sys"):
            add(name, tarfile.DIRTYPE)
        add("tmp", tarfile.DIRTYPE, 0o1777)
        add("bin/busybox", data=elf)
        for name in applets:
            if name != "busybox":
                add("bin/" + name, tarfile.SYMTYPE, 0o777, link="busybox")
        add("etc/passwd", mode=0o644, data=b"root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/:/bin/false\n")
        add("etc/group", mode=0o644, data=b"root:x:0:\nnogroup:x:65534:\n")
    return out.getvalue()


def main() -> None:
    if len(sys.argv) not in (2, 3):
        sys.exit(__doc__)
    data = layer(sys.argv[2] if len(sys.argv) == 3 else "/bin/busybox")
    digest = hashlib.sha256(data).hexdigest()
    manifest = []
    with tarfile.open(sys.argv[1], "w", format=tarfile.GNU_FORMAT) as tar:

        def add(name: str, content: bytes) -> None:
            info = tarfile.TarInfo(name)
            info.size, info.mode = len(content), 0o644
            tar.addfile(info, io.BytesIO(content))

        add(f"{digest}/layer.tar", data)
        for tag, cmd in IMAGES:
            config = json.dumps(
                {
                    "architecture": ARCH.get(platform.machine(), platform.machine()),
                    "os": "linux",
                    "created": "1970-01-01T00:00:00Z",
                    "config": {"Cmd": cmd, "Env": ["PATH=/bin"], "WorkingDir": "/"},
                    "rootfs": {"type": "layers", "diff_ids": ["sha256:" + digest]},
                    "history": [{"created": "1970-01-01T00:00:00Z", "created_by": "busybox"}],
                }
            ).encode()
            name = hashlib.sha256(config).hexdigest() + ".json"
            add(name, config)
            manifest.append({"Config": name, "RepoTags": [tag], "Layers": [f"{digest}/layer.tar"]})
        add("manifest.json", json.dumps(manifest).encode())


if __name__ == "__main__":
    main()

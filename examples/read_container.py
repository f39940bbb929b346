"""Read a container from now to its end: read_container.py ADDRESS CONTAINER."""

import sys

from muxframe import connect  # Docker, Podman, Hyper; of containerd, CRI-O and iSulad: from muxframe.cri import connect

with connect(sys.argv[1]).attach(sys.argv[2]) as session:
    for stream, payload in session:
        print(stream.name, bytes(payload).decode(), end="")
    print("exit code", session.wait())

"""Peers in other languages, once each and only if run.py has built them: they time themselves, and only there."""

from __future__ import annotations

import pytest

from . import workloads
from .contenders import Unavailable, foreign, sockets


@pytest.mark.parametrize("name", workloads.NAMES)
@pytest.mark.parametrize("peer", foreign.PEERS, ids=lambda peer: peer.language)
def test_peer(peer: foreign.Foreign, name: str) -> None:
    workload = workloads.make(name, 256 * workloads.KIB)
    try:
        said = peer.run(peer.command(build=False), sockets.wire_path(workload), workload, 1)
    except Unavailable as why:
        pytest.skip(f"{peer.name}: {why}")
    assert len(said["seconds"]) == 1

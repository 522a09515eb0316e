"""Messages between the pool and its fork server, one per packet of a SEQPACKET socket. Both ends
are trusted code.
"""

from __future__ import annotations

import msgspec

from pyvision_rl.sandbox.config import Isolation
from pyvision_rl.sandbox.limits import Limits

MAX_PACKET = 65536
MAX_VIDEOS = 63
"""Of one runtime: all their descriptors come in one packet."""


class Setup(msgspec.Struct, frozen=True, tag="setup"):
    """Pool to server, once."""

    isolation: Isolation
    folder: str
    """An empty folder of the pool's own; scratch folders go there where no private tmpfs can be
    mounted.
    """
    memory_mb: int
    scratch_mb: int
    limits: Limits
    without: list[str]
    """Layers left out on purpose, for tests that show what each is worth."""


class Spawn(msgspec.Struct, frozen=True, tag="spawn"):
    """Pool to server: fork a runtime. Descriptors in the packet: its channel, then its videos."""

    id: int
    num_videos: int


class Ready(msgspec.Struct, frozen=True, tag="ready"):
    """Server to pool, once: the layers that are on, and those that are not with the reason."""

    layers: list[str]
    missing: list[str]


class Spawned(msgspec.Struct, frozen=True, tag="spawned"):
    """Server to pool; the packet carries a pidfd of the runtime."""

    id: int


class Exited(msgspec.Struct, frozen=True, tag="exited"):
    """Server to pool: the runtime is gone; `code` is a negative signal number or an exit status."""

    id: int
    code: int


class Refused(msgspec.Struct, frozen=True, tag="refused"):
    """Server to pool: it cannot start (id -1), or cannot fork a runtime."""

    id: int
    reason: str


FromServer = Ready | Spawned | Exited | Refused

TO_SERVER: msgspec.msgpack.Decoder[Setup | Spawn] = msgspec.msgpack.Decoder(Setup | Spawn)
TO_POOL: msgspec.msgpack.Decoder[FromServer] = msgspec.msgpack.Decoder(FromServer)
encode = msgspec.msgpack.encode

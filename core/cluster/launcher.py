"""`python -m core.cluster.launcher COUNT ARGUMENTS…`: torchrun, for processes of this machine alone.

torchrun's own store listens for other machines, too, and nobody asked for that here: so theirs is one that
listens on the loopback interface, and all else is torchrun.
"""

from __future__ import annotations

import socket
import sys
import uuid
from collections.abc import Sequence
from datetime import timedelta

from torch.distributed import TCPStore  # type: ignore[attr-defined]
from torch.distributed.elastic.multiprocessing import SignalException
from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
from torch.distributed.elastic.rendezvous import RendezvousParameters, rendezvous_handler_registry
from torch.distributed.elastic.rendezvous.static_tcp_rendezvous import StaticTCPRendezvous
from torch.distributed.launcher.api import LaunchConfig, elastic_launch

from core.runs.processes import describe_exit

HOST, _MINUTES = "127.0.0.1", 10
#: What each process is; the arguments are those of `core.stages.accompany`.
MEMBER = ("-u", "-m", "core.stages.accompany")


class Loopback(StaticTCPRendezvous):
    """Where the processes of one launch meet: on a free port that only this machine reaches."""

    def __init__(self, params: RendezvousParameters) -> None:
        listening = socket.create_server((HOST, 0))
        port = listening.getsockname()[1]
        super().__init__(HOST, port, 0, 1, params.run_id, 60 * _MINUTES)
        self._store = TCPStore(
            HOST, port, None, True, timedelta(minutes=_MINUTES),
            wait_for_workers=False, multi_tenant=True, master_listen_fd=listening.detach(),
        )  # fmt: skip

    def get_backend(self) -> str:
        """Its name among torch's."""
        return "loopback"


def launch(count: int, arguments: Sequence[str]) -> int:
    """Start so many processes, watch them, and end all when one fails. Returns 0, or 1 if one did."""
    rendezvous_handler_registry.register("loopback", Loopback)
    here = LaunchConfig(1, 1, count, run_id=uuid.uuid4().hex, rdzv_backend="loopback", max_restarts=0)
    try:
        elastic_launch(here, sys.executable)(*MEMBER, *arguments)
    except ChildFailedError as error:
        rank, failure = error.get_first_failure()
        print(f"Process {rank + 1} of {count} {describe_exit(failure.exitcode)}.", file=sys.stderr)
        return 1
    except SignalException:
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(launch(int(sys.argv[1]), sys.argv[2:]))

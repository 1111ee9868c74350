"""The dashboard's command line, and the checks worth making before anything is started."""

from __future__ import annotations

import argparse
import errno
import socket
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NoReturn

from core.engine.client import LOAD_LIMIT_S
from core.errors import InputError, LaunchError, SpecError, storage_error
from core.option import options_of
from core.spec.cluster import ClusterSpec
from core.spec.model import DEVICE_MAPS, DTYPES, ModelSpec
from pruneviz import access

#: As it was started, for its help and for what it says of a wrong option.
PROGRAM = {"app": "python app.py", "__main__": "python -m pruneviz"}.get(Path(sys.argv[0]).stem, "pruneviz")

MOST_SECONDS = 1_000_000


@dataclass(frozen=True)
class Arguments:
    """What was given on the command line, checked."""

    model: str
    host: str
    port: int
    runs_dir: Path
    device: str
    dtype: str
    auth: tuple[str, str] | None
    allow_hosts: tuple[str, ...]
    load_limit_s: float
    allow_remote_code: bool
    cluster: ClusterSpec
    mcp: bool
    device_map: str
    max_memory: str


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        """One line that says what is wrong, instead of the whole usage."""
        raise InputError(f"{message[:1].upper()}{message[1:]}; see {PROGRAM} --help.")


def parse(argv: list[str] | None = None) -> Arguments:
    """Read the command line. Raises InputError, LaunchError or StorageError with what to do."""
    parser = _Parser(
        prog=PROGRAM,
        description="Structured pruning of language models, in the browser.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    parser.add_argument("--model", default="demo", help="demo, a hub id, a folder, or a .gguf file")
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on; 0.0.0.0 for all")
    parser.add_argument("--port", type=int, default=7860, help="port to listen on")
    parser.add_argument("--runs-dir", type=Path, default=Path("runs"), help="folder that holds all runs")
    parser.add_argument("--device", default="auto", help="auto, cpu, mps, cuda or cuda:N")
    parser.add_argument("--dtype", default="auto", choices=DTYPES, help="precision of the weights")
    parser.add_argument(
        "--device-map", default="none", choices=[*DEVICE_MAPS],
        help="auto: what of a model does not fit on the device rests elsewhere, and is lent to it",
    )  # fmt: skip
    parser.add_argument(
        "--max-memory", default="", metavar="DEVICE=SIZE,...",
        help="what devices may hold of the weights then, such as cuda:0=20GiB,cpu=100GiB",
    )  # fmt: skip
    parser.add_argument(
        "--load-limit", type=float, default=LOAD_LIMIT_S, metavar="SECONDS",
        help="longest time that reading a model for a card or an answer may take",
    )  # fmt: skip
    parser.add_argument(
        "--allow-remote-code", action="store_true",
        help="let runs that are started here run code that comes with a model",
    )  # fmt: skip
    _where_runs_work(parser)
    parser.add_argument(
        "--mcp", action="store_true", help="let models call the endpoints of docs/api.md (MCP)"
    )
    _who_may_reach(parser)
    given = parser.parse_args(argv)
    return Arguments(
        given.model, given.host, free_port(given.host, given.port), writable(given.runs_dir), given.device,
        given.dtype, reachable(given.host, access.login(given.auth, given.auth_file), given.insecure),
        tuple(access.host_name(name) for name in given.allow_host), positive(given.load_limit),
        given.allow_remote_code, cluster(vars(given)), speakable(given.mcp), given.device_map,
        ModelSpec(device_map=given.device_map, max_memory=given.max_memory).max_memory,
    )  # fmt: skip


def _where_runs_work(parser: argparse.ArgumentParser) -> None:
    """The options of a run's `cluster`, for all runs of the page that say nothing else."""
    for name, option in options_of(ClusterSpec).items():
        parser.add_argument(
            option.flag, dest=f"cluster_{name}", metavar=option.spoken.upper(), help=option.help
        )


def cluster(given: Mapping[str, Any]) -> ClusterSpec:
    """Where runs work. Raises SpecError."""
    options = options_of(ClusterSpec)
    typed = {name: given[f"cluster_{name}"] for name in options if given[f"cluster_{name}"] is not None}
    for name, text in typed.items():
        if options[name].kind is int:
            if not text.isdecimal():
                raise SpecError(f"{options[name].flag} must be {options[name].accepted()}, got {text!r}.")
            typed[name] = int(text)
    return ClusterSpec(**typed)


def _who_may_reach(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--auth", metavar="USER", help=f"ask for this user, with the password in {access.PASSWORD}"
    )
    parser.add_argument("--auth-file", type=Path, metavar="FILE", help="a file with USER:PASSWORD instead")
    parser.add_argument(
        "--allow-host", action="append", default=[], metavar="NAME",
        help="answer under this host name, too, such as that of a proxy; may be given again",
    )  # fmt: skip
    parser.add_argument(
        "--insecure", action="store_true", help="listen where other machines reach it without a login"
    )


def speakable(mcp: bool) -> bool:
    """`mcp`, if what it needs is installed. Raises InputError."""
    if mcp and find_spec("mcp") is None:
        raise InputError(
            "--mcp needs the package mcp, which is not installed; run pip install -r requirements-mcp.txt, "
            "or leave it out."
        )
    return mcp


def reachable(host: str, login: tuple[str, str] | None, insecure: bool) -> tuple[str, str] | None:
    """`login`, if there is one or none is needed. Raises InputError where all could start runs."""
    if access.exposed(host) and not (login or insecure):
        raise InputError(
            f"--host {host} can be reached from other machines, and whoever reaches the page acts as you: "
            f"add --auth USER with a password in {access.PASSWORD}, or --insecure if only you can reach it."
        )
    return login


def positive(seconds: float) -> float:
    """`seconds`, more than none and no more than a clock can count. Raises InputError."""
    if not 0 < seconds <= MOST_SECONDS:
        raise InputError(
            f"--load-limit must be more than 0 and at most {MOST_SECONDS:,} seconds, got {seconds:g}; "
            "the usual one is 600."
        )
    return seconds


def free_port(host: str, port: int) -> int:
    """`port` if this program can listen there. Raises InputError or LaunchError."""
    if not 1 <= port <= 65535:
        raise InputError(f"--port must be between 1 and 65535, got {port}; the usual one is 7860.")
    try:
        address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        with socket.socket(address[0], socket.SOCK_STREAM) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(address[4])
    except socket.gaierror as error:
        raise InputError(f"--host {host} is no address ({error.strerror}); try 127.0.0.1.") from error
    except OSError as error:
        if error.errno == errno.EADDRNOTAVAIL:
            raise InputError(f"--host {host} is no address of this machine; try 127.0.0.1.") from error
        raise LaunchError(
            f"Port {port} on {host} cannot be used: {error.strerror}; "
            f"choose another one, for example --port {port + 1}."
        ) from error
    return port


def writable(folder: Path) -> Path:
    """`folder`, made if need be, as an absolute path. Raises StorageError if nothing can be written there."""
    folder = folder.expanduser().absolute()
    probe = folder / ".writable"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        probe.touch()
        probe.unlink()
    except OSError as error:
        raise storage_error(folder, error) from error
    return folder

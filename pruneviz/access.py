"""Who may reach the page: the login, the host names it answers to, and the addresses it is found at."""

from __future__ import annotations

import ipaddress
import os
import socket
import stat
from collections.abc import Iterator, Sequence
from pathlib import Path

import psutil

from core.errors import InputError

PASSWORD = "PRUNEVIZ_PASSWORD"
LOOPBACK = ("127.0.0.1", "localhost", "[::1]")
_OTHERS_MAY_READ = stat.S_IRWXG | stat.S_IRWXO


def login(user: str | None, file: Path | None) -> tuple[str, str] | None:
    """User and password, or None where nobody is to log in. No password is on the command line.

    A password in the environment is taken out of it, so that no run and no model inherits it.

    Raises:
        InputError: half of a login was given, or in a place where others can read it.
    """
    password = os.environ.pop(PASSWORD, "")
    if file is not None:
        if user is not None or password:
            raise InputError(f"--auth-file holds user and password; leave out --auth and {PASSWORD}.")
        return _from_file(file.expanduser())
    if user is None:
        if password:
            raise InputError(f"{PASSWORD} is set, but no user; add --auth USER, or unset it.")
        return None
    if not user or ":" in user:
        raise InputError(
            "--auth takes the user alone: everybody on this machine can read a password on the command line. "
            f"Put it into {PASSWORD}, or both into a file for --auth-file."
        )
    if not password:
        raise InputError(f"--auth {user} needs a password in {PASSWORD}, or give both with --auth-file FILE.")
    return user, password


def _from_file(file: Path) -> tuple[str, str]:
    try:
        if file.stat().st_mode & _OTHERS_MAY_READ:
            raise InputError(f"--auth-file {file} can be read by others; run chmod 600 {file} first.")
        line = next(iter(file.read_text(encoding="utf-8").splitlines()), "")
    except OSError as error:
        raise InputError(f"--auth-file {file} cannot be read: {error.strerror or error}.") from error
    except UnicodeDecodeError as error:
        raise InputError(f"--auth-file {file} is not text; its first line must be USER:PASSWORD.") from error
    user, _, password = line.partition(":")
    if not (user and password):
        raise InputError(f"--auth-file {file} must hold USER:PASSWORD in its first line.")
    return user, password


def exposed(host: str) -> bool:
    """Whether somebody on another machine could reach a server that listens on `host`."""
    found = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
    return not all(ipaddress.ip_address(address[4][0]).is_loopback for address in found)


def names(host: str, allowed: Sequence[str]) -> list[str]:
    """Host names that requests may come under: of this machine alone, of `--host`, and of `--allow-host`."""
    own = own_names() if _listens_on_all(host) else [_bracketed(host)]
    return list(dict.fromkeys([*LOOPBACK, *own, *map(host_name, allowed)]))


def host_name(text: str) -> str:
    """One `--allow-host`. Raises InputError."""
    name = _bracketed(text.strip())
    if not name or "*" in name or "/" in name or (":" in name and not name.startswith("[")):
        raise InputError(
            f"--allow-host {text} must be one host name without scheme and port, such as prune.example.org."
        )
    return name.lower()


def addresses(host: str, port: int) -> list[str]:
    """Where a browser finds a server that listens on `host`."""
    hosts = [*own_names(), "127.0.0.1"] if _listens_on_all(host) else [_bracketed(host)]
    return [f"http://{name}:{port}/" for name in dict.fromkeys(hosts)]


def own_names() -> list[str]:
    """The name of this machine and the addresses of its interfaces, but loopback and link-local ones."""
    return [socket.gethostname().lower(), *_interfaces()]


def _interfaces() -> Iterator[str]:
    for found in psutil.net_if_addrs().values():
        for address in found:
            if address.family in (socket.AF_INET, socket.AF_INET6):
                ip = ipaddress.ip_address(address.address.partition("%")[0])
                if not (ip.is_loopback or ip.is_link_local):
                    yield _bracketed(str(ip))


def _listens_on_all(host: str) -> bool:
    found = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
    return any(ipaddress.ip_address(address[4][0]).is_unspecified for address in found)


def _bracketed(host: str) -> str:
    """`host` as it stands in an address: IPv6 in brackets."""
    try:
        return f"[{host}]" if ipaddress.ip_address(host).version == 6 else host
    except ValueError:
        return host

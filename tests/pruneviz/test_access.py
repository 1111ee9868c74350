from __future__ import annotations

import os
import socket

import pytest

from core.errors import InputError
from pruneviz import access


@pytest.fixture
def password(monkeypatch):
    monkeypatch.setenv(access.PASSWORD, "s3cret")


def written(tmp_path, text, mode=0o600):
    file = tmp_path / "login"
    file.write_text(text)
    file.chmod(mode)
    return file


def test_the_password_comes_from_the_environment_and_does_not_stay_there(password):
    assert access.login("ada", None) == ("ada", "s3cret")
    assert access.PASSWORD not in os.environ


def test_or_with_the_user_from_a_file(tmp_path):
    assert access.login(None, written(tmp_path, "ada:a:b\nmore\n")) == ("ada", "a:b")


def test_nobody_logs_in_unless_somebody_is_named():
    assert access.login(None, None) is None


def test_a_password_on_the_command_line_is_refused():
    with pytest.raises(InputError, match="can read a password on the command line"):
        access.login("ada:s3cret", None)


def test_half_a_login_is_refused(password, tmp_path):
    with pytest.raises(InputError, match="no user; add --auth USER"):
        access.login(None, None)
    with pytest.raises(InputError, match=f"needs a password in {access.PASSWORD}"):
        access.login("ada", None)
    with pytest.raises(InputError, match="leave out --auth"):
        access.login("ada", written(tmp_path, "ada:x"))


@pytest.mark.parametrize(
    ("text", "mode", "said"),
    [
        ("ada:x", 0o640, "can be read by others; run chmod 600"),
        ("ada", 0o600, "must hold USER:PASSWORD"),
        (":x", 0o600, "must hold USER:PASSWORD"),
        ("", 0o600, "must hold USER:PASSWORD"),
    ],
)
def test_what_a_file_must_be(tmp_path, text, mode, said):
    with pytest.raises(InputError, match=said):
        access.login(None, written(tmp_path, text, mode))


def test_a_file_that_is_not_there(tmp_path):
    with pytest.raises(InputError, match="cannot be read: No such file"):
        access.login(None, tmp_path / "none")


@pytest.mark.parametrize(
    ("host", "there"),
    [("127.0.0.1", False), ("localhost", False), ("::1", False), ("0.0.0.0", True), ("::", True)],
)
def test_what_other_machines_reach(host, there):
    assert access.exposed(host) is there


def test_it_answers_under_its_own_names_and_those_it_is_given():
    assert access.names("127.0.0.1", []) == ["127.0.0.1", "localhost", "[::1]"]
    assert access.names("127.0.0.2", ["Prune.example.org"])[3:] == ["127.0.0.2", "prune.example.org"]
    assert socket.gethostname().lower() in access.names("0.0.0.0", [])
    assert "0.0.0.0" not in access.names("0.0.0.0", [])


@pytest.mark.parametrize("name", ["*", "*.example.org", "https://example.org", "example.org:80", "", "a/b"])
def test_what_is_no_host_name(name):
    with pytest.raises(InputError, match="must be one host name without scheme and port"):
        access.host_name(name)


def test_the_address_is_one_that_a_browser_opens():
    assert access.addresses("127.0.0.1", 7860) == ["http://127.0.0.1:7860/"]
    assert access.addresses("::1", 7860) == ["http://[::1]:7860/"]
    everywhere = access.addresses("0.0.0.0", 7860)
    assert f"http://{socket.gethostname().lower()}:7860/" in everywhere
    assert not [address for address in everywhere if "0.0.0.0" in address]

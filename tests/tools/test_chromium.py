"""Where no browser is and none can be installed, asking for one says so and fails nothing."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import chromium
import pytest


@pytest.fixture
def commands(tmp_path):
    """A folder of commands that has neither a browser nor a package manager that would install one."""
    for name in ("sh", "id", "env"):
        (tmp_path / name).symlink_to(shutil.which(name))
    command(tmp_path / "apt-get", "exit 1")
    command(tmp_path / "sudo", "exit 1")
    return tmp_path


def command(path, body):
    path.write_text(f"#!/bin/sh\n{body}\n")
    path.chmod(0o755)
    return path


def ask(folder, **variables):
    environment = {"PATH": str(folder), **variables}
    tool = Path(chromium.__file__)
    return subprocess.run([sys.executable, tool], env=environment, capture_output=True, text=True)


@pytest.mark.parametrize("variables", [{}, {"CI": "true"}])
def test_without_a_browser_it_says_what_is_missing_and_succeeds(commands, variables):
    done = ask(commands, **variables)
    assert done.returncode == 0
    assert "chromium fonts-dejavu-core" in done.stderr


def test_it_installs_what_is_missing(commands):
    command(commands / "apt-get", f'echo "$@" >> {commands}/log')
    command(commands / "sudo", 'shift; exec "$@"')
    assert ask(commands).stderr == ""
    assert "install -y -qq --no-install-recommends chromium fonts-dejavu-core" in (commands / "log").read_text()


@pytest.mark.parametrize("name", chromium.NAMES)
def test_a_browser_that_is_there_is_used(commands, monkeypatch, name):
    path = command(commands / name, "exit 0")
    assert ask(commands).stderr == ""
    monkeypatch.setenv("PATH", str(commands))
    assert chromium.find() == os.fspath(path)


def test_without_a_browser_there_is_none(commands, monkeypatch):
    monkeypatch.setenv("PATH", str(commands))
    with chromium.opened() as browser:
        assert browser is None

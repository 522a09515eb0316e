"""`view` and `play` as a person calls them."""

import subprocess
import sys
from urllib.request import urlopen

import pytest

from pyvision_rl.cli.main import main


@pytest.fixture
def call(monkeypatch, capsys, tmp_path):
    """Run a command in an empty folder; its exit code and its one line of complaint."""
    monkeypatch.chdir(tmp_path)

    def run(*arguments: str) -> tuple[int, str]:
        monkeypatch.setattr(sys, "argv", ["pyvision-rl", *arguments])
        code = main()
        return code, capsys.readouterr().err.strip()

    return run


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (("view",), "the following arguments are required: runs"),
        (("view", "nowhere"), "nowhere: no run in or below: there is no config.yaml"),
        (("view", ".", "--port", "99999"), "port: 99999, must be from 0 to 65535"),
        (("view", ".", "--limit", "0"), "limit: 0, must be at least 1"),
        (("play", "--model", "tiny"), "question: ask something, or use --page true"),
        (("play", "--model", "none", "--question", "?"), "no such folder, and not a hub id"),
        (("play", "--model", "tiny", "--question", "?", "--image", "x.png"), "x.png"),
    ],
)
def test_a_mistake_is_one_line(call, arguments, complaint):
    code, said = call(*arguments)
    assert code == 2
    assert complaint in said
    assert "\n" not in said


def test_view_serves_at_the_address_it_says(runs):
    command = [sys.executable, "-m", "pyvision_rl.cli", "view", str(runs), "--port", "0"]
    server = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        assert server.stdout is not None
        url = server.stdout.readline().split()[1]
        assert url.startswith("http://127.0.0.1:")
        with urlopen(url) as response:
            assert b"/static/main.js" in response.read()
    finally:
        server.terminate()
        server.wait()


def test_a_taken_port_is_said(call, runs, url):
    port = url.rsplit(":", 1)[1]
    code, said = call("view", str(runs), "--port", port)
    assert (code, "try --port 0" in said) == (2, True)

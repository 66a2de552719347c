"""The commands of docs/auditing.md, as they stand there, on planted data."""

import re
import shlex
import shutil
import subprocess
import tomllib
import uuid
from importlib.metadata import EntryPoint
from pathlib import Path
from string import Template

import pytest

from tests.integration.service.exports import past
from tests.integration.service.exports.desk import Desk
from tests.support import ROOT
from tests.support.authority import OpenSslAuthority, make_authority, serve

GUIDE = (ROOT / "docs/auditing.md").read_text()
COMMANDS = [
    line
    for block in re.findall(r"^```sh\n(.+?)^```$", GUIDE, re.MULTILINE | re.DOTALL)
    for line in block.splitlines()
]
ENTRY_POINTS = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["entry-points"]
OF_THE_OWNER = {"key"}
PLANTED = {
    "2026-11-01T00:00:00Z": past.FROM.strftime("%Y-%m-%dT%H:%M:%SZ"),
    "2026-12-01T00:00:00Z": past.TO.strftime("%Y-%m-%dT%H:%M:%SZ"),
    "2026-11-01": past.FROM.strftime("%Y-%m-%dT%H:%M:%S"),
    "2026-12-01": past.TO.strftime("%Y-%m-%dT%H:%M:%S"),
    "model=chat": "model=tiny",
    '"model": "chat"': '"model": "tiny"',
    "--model chat": "--model tiny",
    "concept=weapons": "concept=deception",
    "resolution=day": "resolution=hour",
}


def on_planted_data(command: str) -> str:
    for here, there in PLANTED.items():
        command = command.replace(here, there)
    return command


class Auditor:
    """Runs the guide's commands with the service and the store of a desk."""

    def __init__(self, desk: Desk, capsys: pytest.CaptureFixture[str]) -> None:
        self._desk = desk
        self._capsys = capsys
        self._words = {
            "URL": "",
            "P": "Subtext-Purpose: audit; engagement 17",
            "INCIDENT": str(desk.stored.incident),
            "EXPLANATION": str(desk.stored.explanations[0]),
        }

    def run(self, command: str) -> None:
        """Run one line; an answer that is no success, or another status than 0, fails the test."""
        program, *arguments = shlex.split(Template(on_planted_data(command)).substitute(self._words))
        if program == "curl":
            self._curl(arguments)
        elif program == "openssl":
            subprocess.run([program, *arguments], check=True, capture_output=True)
        else:
            assert program == "subtext"
            said = self.subtext(*arguments)
            if arguments[0] == "key":
                self._words["T" if "text-reader" in arguments else "K"] = (
                    f"Authorization: Bearer {said.strip()}"
                )

    def timestamp(self, authority: OpenSslAuthority) -> None:
        """Have the log's checkpoint timestamped, as whoever runs the store does."""
        Path("timestamps").mkdir()
        shutil.copy(authority.roots, "tsa-roots.pem")
        kept = ["--public-key", "log.pub", "--checkpoints", "checkpoints", "--timestamps", "timestamps"]
        with serve(authority) as url:
            self.subtext("timestamp", "--authority", url, "--roots", "tsa-roots.pem", *kept, "--once")
        [response] = Path("timestamps").glob("*/*.tsr")
        self._words |= {"TENANT": response.parent.name, "SIZE": response.stem}

    def subtext(self, name: str, *arguments: str) -> str:
        """Run one of our commands, by its entry point, and return what it wrote."""
        self._capsys.readouterr()
        entry = EntryPoint(name, ENTRY_POINTS["subtext.commands"][name], "subtext.commands")
        status, said = entry.load()(list(arguments)), self._capsys.readouterr()
        assert status == 0, (name, said)
        return said.out

    def _curl(self, arguments: list[str]) -> None:
        headers, body, file, path = {}, None, None, ""
        given = iter(arguments)
        for one in given:
            match one:
                case "-sS":
                    pass
                case "-H":
                    name, _, value = next(given).partition(": ")
                    headers[name] = value
                case "--json":
                    headers["Content-Type"], body = "application/json", next(given)
                case "-o":
                    file = Path(next(given))
                case _:
                    path = one
        method = "GET" if body is None else "POST"
        answer = self._desk.client.request(method, path, headers=headers, content=body)
        assert answer.is_success, (path, answer.text)
        if file is not None:
            file.write_bytes(answer.content)
        if body is not None and path == "/v1/exports":
            self._words["EXPORT"] = answer.json()["id"]
            self._desk.maker.make(uuid.UUID(answer.json()["id"]))  # as the keeper does


def test_every_command_of_the_guide_does_what_it_should(  # noqa: PLR0917  # fixtures
    desk: Desk,
    database_url: str,
    reader_url: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)  # where the sequencer's `checkpoints` are
    Path("cosignatures").mkdir()
    Path("log.pub").write_text(desk.signer.verifier.encode())
    auditor = Auditor(desk, capsys)
    Path("witness.pub").write_text(
        auditor.subtext("witness", "keygen", "witness.key", "--name", "w.example")
    )
    monkeypatch.setenv("SUBTEXT_DATABASE_URL", reader_url)
    [witness] = [one for one in COMMANDS if one.startswith("subtext witness")]
    auditor.run(witness)
    auditor.timestamp(make_authority(tmp_path / "authority"))

    for command in COMMANDS:
        is_owners = command.split()[1] in OF_THE_OWNER
        monkeypatch.setenv("SUBTEXT_DATABASE_URL", database_url if is_owners else reader_url)
        auditor.run(command)

    assert Path("report/report.json").exists()
    assert Path("kept.note").read_text().startswith(desk.signer.name)

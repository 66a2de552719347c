"""The demo's small parts: prompts, ports, home, table, command lines."""

import dataclasses
import datetime as dt
import io
import json
import re
from pathlib import Path

import pytest
from rich.console import Console

from deploy.demo import commands, evidence
from deploy.demo.prompts import by_turns, load_prompts
from deploy.demo.readback import Reading, flag_label
from deploy.demo.table import VISITOR, Screen, fragment, line, readings_table
from deploy.demo.watch import Arrivals
from deploy.local import launch, prepare
from deploy.local.home import Home, HomeInUseError, open_home
from deploy.local.ports import Ports
from deploy.local.progress import Reporter
from deploy.local.stores import LOG_LOGIN, SERVICE_LOGIN
from deploy.local.terminal import plain
from service.evidence.note import read_signer

READING = Reading(
    id="e1",
    request_id="r1",
    position=3,
    token="\n",
    text="[red]a list[/red]\nof things",
    fve=0.25,
    fve_beyond_token=0.31,
    is_verified=False,
    calibration_n=100,
    captured_at=dt.datetime(2026, 1, 1, tzinfo=dt.UTC),
)


def plan(home: Home, *, is_eager: bool = False) -> launch.LaunchPlan:
    return launch.LaunchPlan(
        home=home,
        ports=Ports(),
        model_dir=Path("/models/m"),
        decoder_dir=Path("/decoders/d"),
        database_url="postgresql://postgres:@/subtext?host=/tmp",
        threads=1,
        is_eager=is_eager,
    )


def test_the_prompts_are_about_forty_and_cover_what_they_should() -> None:
    prompts = load_prompts()

    assert 35 <= len(prompts) <= 60
    assert {"code", "medical", "personal data", "language", "refusal", "long"} <= {p.topic for p in prompts}
    assert len({p.text for p in prompts}) == len(prompts)
    assert sum(len(p.text) > 800 for p in prompts) >= 2


def test_the_topics_take_turns_and_no_prompt_is_lost() -> None:
    prompts = load_prompts()
    topics = {prompt.topic for prompt in prompts}

    ordered = by_turns(prompts)

    assert {prompt.topic for prompt in ordered[: len(topics)]} == topics
    assert sorted(ordered) == sorted(prompts)


def test_a_broken_prompt_entry_is_named(tmp_path: Path) -> None:
    path = tmp_path / "prompts.yaml"
    path.write_text("- {topic: a, text: b}\n- {topic: a}\n")

    with pytest.raises(ValueError, match=r"prompts\.yaml, entry 2"):
        load_prompts(path)


def test_one_home_serves_one_demo_at_a_time(tmp_path: Path) -> None:
    with (
        open_home(tmp_path / "home") as first,
        pytest.raises(HomeInUseError, match="set SUBTEXT_HOME"),
        open_home(tmp_path / "home"),
    ):
        pytest.fail("a second demo was let in")

    assert not first.run_dir.exists()
    with open_home(tmp_path / "home") as again:
        assert again.run_dir.is_dir()


def test_the_socket_path_fits_a_unix_socket_however_deep_the_home_is(tmp_path: Path) -> None:
    deep = tmp_path.joinpath(*["a-rather-long-directory-name"] * 6)

    with open_home(deep) as home:
        assert len(home.socket.removeprefix("ipc://")) <= 107


def test_the_audited_server_gets_the_plugins_configuration_and_production_defaults(tmp_path: Path) -> None:
    with open_home(tmp_path) as home:
        command = list(launch.vllm(plan(home)).command)
        config = json.loads(command[command.index("--additional-config") + 1])
        secret = Path(config["subtext"]["secret_file"])
        secrets = [secret.read_text()]

        assert secret.stat().st_mode & 0o777 == 0o600
        assert not any(secrets[0].strip() in part for part in command)
    with open_home(tmp_path) as again:
        secrets.append(again.draw_secret_file.read_text())
    assert len(set(map(len, secrets))) == 1
    assert secrets[0] != secrets[1]

    assert config["subtext"]["layer"] == 23
    assert config["subtext"]["socket"] == home.socket
    assert "--enforce-eager" not in command


def test_one_home_directory_holds_no_secret_in_a_command_line(tmp_path: Path) -> None:
    with open_home(tmp_path) as home:
        made = plan(home)
        specs = [
            launch.worker(made),
            launch.service(made),
            launch.sidecar(made),
            launch.migrate(made),
            launch.log(made),
            launch.verify(made),
        ]
        secret = home.log_key_file.read_text().strip()

    assert not any(secret in part for spec in specs for part in [*spec.command, *spec.env.values()])
    assert all(made.database_url not in part for spec in specs for part in spec.command)


def test_the_evidence_logs_key_is_made_once_and_only_its_owner_reads_it(tmp_path: Path) -> None:
    with open_home(tmp_path) as home:
        first, public = home.log_key_file.read_text(), home.log_public_key_file.read_text()
    with open_home(tmp_path) as again:
        assert again.log_key_file.read_text() == first

    assert home.log_key_file.stat().st_mode & 0o777 == 0o600
    assert home.evidence_dir.stat().st_mode & 0o777 == 0o700
    assert read_signer(first).verifier.encode() == public.strip()


def test_a_log_key_that_a_kill_left_half_made_is_made_anew(tmp_path: Path) -> None:
    with open_home(tmp_path) as home:
        home.log_key_file.unlink()
    with open_home(tmp_path):
        signer = read_signer(home.log_key_file.read_text())

    assert signer.verifier.encode() == home.log_public_key_file.read_text().strip()


def test_the_log_and_who_verifies_it_have_logins_of_their_own(tmp_path: Path) -> None:
    with open_home(tmp_path) as home:
        made = plan(home)
        urls = [spec.env["SUBTEXT_DATABASE_URL"] for spec in (launch.log(made), launch.verify(made))]

    assert [url.partition("@")[0].rpartition("/")[2].rstrip(":") for url in urls] == [
        LOG_LOGIN,
        SERVICE_LOGIN,
    ]


def test_the_figures_of_all_tenants_are_added_up() -> None:
    one = {"tenant": "a", "findings": 0, "rows_verified": 2, "entries": 3, "checkpoints": 1}
    written = f"{json.dumps(one)}\n{json.dumps(one)}\n"

    assert evidence.figures(written) == {
        "findings": 0,
        "rows_verified": 4,
        "entries": 6,
        "checkpoints": 2,
    }
    with pytest.raises(evidence.EvidenceError, match="no figures"):
        evidence.figures("")


def test_a_new_version_of_the_decoder_is_assembled_anew(tmp_path: Path) -> None:
    shipped = tmp_path / "shipped"
    (shipped / "av").mkdir(parents=True)
    (shipped / "card.json").write_text("{}")
    first = prepare.decoder_target(shipped, tmp_path)

    assert prepare.decoder_target(shipped, tmp_path) == first
    (shipped / "card.json").write_text('{"fve": 0.5}')
    assert prepare.decoder_target(shipped, tmp_path) != first


def test_a_missing_decoder_is_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="no decoder in"):
        prepare.decoder_target(tmp_path / "absent", tmp_path)


def test_a_prompt_is_cut_to_one_short_line_and_a_visitors_is_marked() -> None:
    assert fragment("a\nb   c") == "a b c"
    assert len(fragment("x" * 500)) == 34
    assert fragment(None) == VISITOR


def test_without_a_terminal_each_reading_is_printed_once_and_as_plain_text() -> None:
    console = Console(file=io.StringIO(), width=150)
    screen = Screen(console, "addresses", {"r1": "What is [bold]this[/bold]?"}.get)

    screen.start()
    screen.show([READING], {"r1": ["medical"]}, "", {})
    screen.show([READING], {"r1": ["medical"]}, "", {"r1": "about [b]law[/b] (1 of 1 reading)"})
    screen.show([READING], {"r1": ["medical"]}, "", {"r1": "about [b]law[/b] (1 of 1 reading)"})

    assert isinstance(console.file, io.StringIO)
    written = console.file.getvalue()
    assert written.count("[red]a list[/red] of things") == 1
    assert re.search(
        r"What is \[bold\]this\[/bold\]\? .*'\\n' .*unverified, beyond the token 0\.31 .*flags medical",
        written,
    )
    assert (
        written.count("What is [bold]this[/bold]?         the request: about [b]law[/b] (1 of 1 reading)")
        == 1
    )


HOSTILE = {
    "an escape sequence": "\x1b[2J\x1b]0;title\x07",
    "a link": "\x1b]8;;https://evil.example\x1b\\here\x1b]8;;\x1b\\",
    "C1 controls": "\x9b31m\x9d8;;x\x9c\x85",
    "bidirectional controls": "\u202eno\u202c \u2066a\u2069 \u200f\u061c",
    "line separators and what has no width": "\u2028\u2029\u200b\ufeff\x7f\r\x08",
}


@pytest.mark.parametrize("text", HOSTILE.values(), ids=HOSTILE)
@pytest.mark.parametrize("shown_as", ["table", "lines"])
def test_nothing_that_clients_wrote_reaches_the_terminal_as_a_command(text: str, shown_as: str) -> None:
    is_terminal = shown_as == "table"
    console = Console(file=io.StringIO(), width=400, force_terminal=is_terminal, no_color=True)
    reading = dataclasses.replace(READING, text=f"start {text} end", token=text)
    screen = Screen(console, "addresses", lambda _: f"p{text}")

    console.print(readings_table([reading], {"r1": [text]}, lambda _: f"p{text}", rows=3))
    if not is_terminal:
        screen.start()
        screen.show([reading], {"r1": [text]}, "", {"r1": f"about {text}"})
    Reporter(console, 0.0).line(text)

    assert isinstance(console.file, io.StringIO)
    written = re.sub(r"\x1b\[[0-9;]*m", "", console.file.getvalue())  # rich's own bold and italic
    assert "start" in written
    assert {char for char in written if not char.isprintable()} <= {"\n"}


def test_text_of_any_language_is_shown_as_it_is() -> None:
    for text in ("naïve Ελλάδα 日本語 עברית हिन्दी 🙂", "two\n\tlines", ""):
        assert plain(text) == text


def test_a_line_shows_the_fve_of_a_decoder_that_knows_no_token_means() -> None:
    shown = dataclasses.replace(READING, is_verified=True, fve_beyond_token=None)

    assert "verified, FVE 0.25 " in line(shown, (), None)


def test_the_table_has_the_figure_beyond_the_token_beside_verified() -> None:
    console = Console(file=io.StringIO(), width=150)

    console.print(readings_table([READING], {}, lambda _: None, rows=3))

    assert isinstance(console.file, io.StringIO)
    written = console.file.getvalue()
    assert re.search(r"beyond\b", written)
    assert re.search(r"token ┃ verified", written)
    assert re.search(r"0\.31.*no", written)


def test_a_request_is_complete_after_a_silence_and_again_after_more_readings() -> None:
    arrivals = Arrivals()

    assert arrivals.complete({"r1": 3}, now=0.0, wait_seconds=20.0) == []
    assert arrivals.complete({"r1": 4, "r2": 1}, now=19.0, wait_seconds=20.0) == []
    assert arrivals.complete({"r1": 4, "r2": 2}, now=39.0, wait_seconds=20.0) == ["r1"]
    arrivals.settle("r1")
    assert arrivals.complete({"r1": 2, "r2": 2}, now=58.0, wait_seconds=20.0) == []
    assert arrivals.complete({"r1": 5, "r2": 2}, now=60.0, wait_seconds=20.0) == ["r2"]
    assert arrivals.complete({"r1": 5}, now=80.0, wait_seconds=20.0) == ["r1"]


def test_the_commands_help_names_its_options(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        commands.demo(["--help"])

    assert stopped.value.code == 0
    assert {"--once", "--home", "--eager"} <= set(re.findall(r"--[a-z]+", capsys.readouterr().out))


def test_on_a_terminal_steps_then_the_table_then_steps_again_share_the_screen() -> None:
    console = Console(file=io.StringIO(), width=150, force_terminal=True)
    reporter = Reporter(console, started_at=0.0)
    screen = Screen(console, "addresses", lambda _: None)

    with reporter.step("starting"):
        pass
    screen.start()
    screen.show([], {}, "3 requests answered", {"r1": "about law (2 of 3 readings)"})
    screen.stop()
    with reporter.step("stopping"):
        pass

    assert isinstance(console.file, io.StringIO)
    written = console.file.getvalue()
    for part in (
        "✓ starting",
        "addresses",
        "about law (2 of 3 readings)",
        "3 requests answered",
        "✓ stopping",
    ):
        assert part in written


def test_a_lead_is_not_shown_without_its_label() -> None:
    assert flag_label({"concept": "medical", "calibrated": False}) == "medical (lead)"
    assert flag_label({"concept": "medical", "calibrated": True}) == "medical"

"""The live table of readings on stderr."""

from collections.abc import Callable, Collection, Mapping, Sequence

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.table import Table
from rich.text import Text

from deploy.demo.readback import Reading
from deploy.local.terminal import plain

_OTHER_LINES = 18  # header, title, borders, summaries and status
_SUMMARIES_SHOWN = 3
_LINES_A_ROW = 2
_PROMPT_CHARS = 34
_LINE_CHARS = 160
VISITOR = "(your request)"


def fragment(prompt: str | None) -> str:
    """Return the start of a prompt on one line; None stands for a visitor's prompt."""
    if prompt is None:
        return VISITOR
    line = " ".join(prompt.split())
    return line if len(line) <= _PROMPT_CHARS else line[: _PROMPT_CHARS - 1] + "…"


def readings_table(
    readings: Sequence[Reading],
    flags: Mapping[str, Collection[str]],
    prompt_of: Callable[[str], str | None],
    rows: int,
) -> Table:
    """Return the newest readings as a table. Text is shown as text, never as markup or as an escape."""
    table = Table(expand=True, title="What the model was computing, by hypothesis", title_justify="left")
    table.add_column("prompt", width=_PROMPT_CHARS, no_wrap=True)
    table.add_column("token", width=12, no_wrap=True)
    table.add_column("explanation (a hypothesis)", ratio=1)
    table.add_column("beyond token", width=6, justify="right")
    table.add_column("verified", width=8)
    table.add_column("flags", width=21)
    for reading in readings[:rows]:
        table.add_row(
            _text(fragment(prompt_of(reading.request_id))),
            _text(repr(reading.token)),
            _text(" ".join(reading.text.split())),
            "" if reading.fve_beyond_token is None else f"{reading.fve_beyond_token:.2f}",
            Text("yes", style="green") if reading.is_verified else Text("no", style="red"),
            _text(", ".join(sorted(flags.get(reading.request_id, ())))),
        )
    return table


def _text(text: str) -> Text:
    return Text(plain(text))


def line(reading: Reading, flags: Collection[str], prompt: str | None) -> str:
    """Return one reading as one plain line, for a stderr that is not a terminal."""
    verified = "verified" if reading.is_verified else "unverified"
    flagged = f" flags {','.join(sorted(flags))}" if flags else ""
    beyond = reading.fve_beyond_token
    figure = f"FVE {reading.fve:.2f}" if beyond is None else f"beyond the token {beyond:.2f}"
    text = " ".join(reading.text.split())[:_LINE_CHARS]
    return (
        f"{fragment(prompt):<{_PROMPT_CHARS}} {reading.token!r:<14} {f'{verified}, {figure}':<33} "
        f"{text}{flagged}"
    )


def summary_line(summary: str, prompt: str | None) -> str:
    """Return a request's summary as one plain line."""
    return f"{fragment(prompt):<{_PROMPT_CHARS}} the request: {summary}"


class Screen:
    """Shows readings as they arrive: in a live table on a terminal, as lines elsewhere."""

    def __init__(self, console: Console, header: str, prompt_of: Callable[[str], str | None]) -> None:
        """``header`` is shown above the table."""
        self._console = console
        self._header = header
        self._prompt_of = prompt_of
        self._shown: set[str] = set()
        self._summaries: dict[str, str] = {}  # last shown summary by request, newest last
        self._live = Live(console=console, auto_refresh=False) if console.is_terminal else None

    def start(self) -> None:
        """Show the header."""
        if self._live is None:
            self._print(self._header)
        else:
            self._live.start()

    def show(
        self,
        readings: Sequence[Reading],
        flags: Mapping[str, Collection[str]],
        status: str,
        summaries: Mapping[str, str],
    ) -> None:
        """Show the newest readings, then ``summaries`` by request, then the ``status`` line."""
        changed = [
            (request, text) for request, text in summaries.items() if self._summaries.get(request) != text
        ]
        for request, text in changed:
            self._summaries.pop(request, None)
            self._summaries[request] = text
        if self._live is not None:
            rows = max(3, (self._console.height - _OTHER_LINES) // _LINES_A_ROW)
            table = readings_table(readings, flags, self._prompt_of, rows)
            newest = list(self._summaries.items())[-_SUMMARIES_SHOWN:]
            lines = [_text(summary_line(text, self._prompt_of(request))) for request, text in newest]
            shown: RenderableType = Group(Text(self._header), table, *lines, Text(status, style="dim"))
            self._live.update(shown, refresh=True)
            return
        for reading in reversed(readings):
            if reading.id not in self._shown:
                self._shown.add(reading.id)
                self._print(
                    line(reading, flags.get(reading.request_id, ()), self._prompt_of(reading.request_id))
                )

        for request, text in changed:
            self._print(summary_line(text, self._prompt_of(request)))

    def stop(self) -> None:
        """Stop updating; the last table stays on the screen."""
        if self._live is not None:
            self._live.stop()

    def _print(self, text: str) -> None:
        self._console.print(plain(text), markup=False, highlight=False, soft_wrap=True)

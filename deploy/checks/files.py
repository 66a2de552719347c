"""Hold docs/files.md against the tree: a line a file, in the order in which an activation meets them.

`python -m deploy.checks.files` compares, `--write` writes it anew. A file's line is its docstring's first.
"""

import argparse
import ast
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent
DOCUMENT = ROOT / "docs" / "files.md"
FOLDERS = (
    ("Inside the audited vLLM server", "sidecar/subtext_sidecar/plugin"),
    ("", "sidecar/subtext_sidecar/plugin/vllm"),
    ("", "sidecar/subtext_sidecar/plugin/vllm/stand_ins"),
    ("", "sidecar/subtext_sidecar/plugin/sampling"),
    ("", "sidecar/subtext_sidecar/plugin/transfer"),
    ("Between the server and the sidecar beside it", "sidecar/subtext_sidecar/local"),
    ("The sidecar's process", "sidecar/subtext_sidecar"),
    ("", "sidecar/subtext_sidecar/shipper"),
    ("", "sidecar/subtext_sidecar/screen"),
    ("", "sidecar/subtext_sidecar/anomaly"),
    ("What sidecar, workers and service agree on", "sidecar/subtext_sidecar/contract"),
    ("", "sidecar/subtext_sidecar/contract/sampling"),
    ("The worker's process, where the decoder runs", "workers"),
    ("", "workers/consumer"),
    ("", "workers/consumer/outage"),
    ("", "workers/consumer/side"),
    ("", "workers/vectors"),
    ("", "workers/nla"),
    ("", "workers/nla/checkpoint"),
    ("", "workers/nla/engine"),
    ("", "workers/judge"),
    ("", "workers/reread"),
    ("Whether the audit would tell", "workers/canary"),
    ("The store and the REST service", "service"),
    ("", "service/store"),
    ("", "service/store/write"),
    ("", "service/store/read"),
    ("", "service/store/tenants"),
    ("", "service/store/access"),
    ("", "service/store/canary"),
    ("", "service/store/vectors"),
    ("", "service/store/evidence"),
    ("", "service/store/retention"),
    ("", "service/retention"),
    ("", "service/store/erasure"),
    ("", "service/store/people"),
    ("", "service/evidence"),
    ("", "service/evidence/bundle"),
    ("", "service/store/configuration"),
    ("", "service/sequencer"),
    ("", "service/erasure"),
    ("", "service/store/exports"),
    ("", "service/exports"),
    ("", "service/keeper"),
    ("", "service/coverage"),
    ("", "service/incidents"),
    ("", "service/policy"),
    ("", "service/prevalence"),
    ("", "service/report"),
    ("", "service/console"),
    ("", "service/webhooks"),
    ("", "service/sign_in"),
    ("", "service/watch"),
    ("", "service/vectors"),
    ("", "service/api"),
    ("", "service/api/access"),
    ("", "service/api/http"),
    ("", "service/api/live"),
    ("", "service/api/paging"),
    ("", "service/api/routes"),
    ("", "service/api/schemas"),
    ("", "migrations"),
    ("", "migrations/versions"),
    ("Before anything runs: a pair and what is normal for it", "workers/training"),
    ("", "workers/training/data"),
    ("", "workers/training/fit"),
    ("", "workers/training/measure"),
    ("", "workers/training/bundle"),
    ("", "workers/calibrate"),
    ("", "workers/probe"),
    ("Running all of it", "deploy"),
    ("", "deploy/local"),
    ("", "deploy/demo"),
    ("", "deploy/checks"),
    ("Measuring it", "bench"),
    ("", "bench/trust"),
    ("", "bench/trust/claims"),
    ("", "bench/trust/nulls"),
    ("", "bench/trust/pairs"),
    ("", "bench/trust/reconstruction"),
)
"""Headings with their folders; a folder without one belongs to the heading above."""


QUESTIONS = (
    ("What does the plugin wrap in vLLM?", "sidecar/subtext_sidecar/plugin/vllm/hooks.py"),
    ("Why would it refuse an engine?", "sidecar/subtext_sidecar/plugin/vllm/refusal.py"),
    ("Who decides that a request is read?", "sidecar/subtext_sidecar/plugin/sampling/rule.py"),
    (
        "What keeps sampled rows within rows_per_second?",
        "sidecar/subtext_sidecar/plugin/sampling/budget.py",
    ),
    ("How do rows leave the accelerator?", "sidecar/subtext_sidecar/plugin/transfer/device.py"),
    ("Where is a full socket counted?", "sidecar/subtext_sidecar/plugin/transfer/sender.py"),
    ("What does a block of rows look like on the local socket?", "sidecar/subtext_sidecar/local/block.py"),
    ("Who notices that the policy file changed?", "sidecar/subtext_sidecar/shipper/policy_follower.py"),
    ("How is an anomaly scored before decoding?", "sidecar/subtext_sidecar/anomaly/score.py"),
    ("Which equations must hold between hops?", "sidecar/subtext_sidecar/contract/equations.py"),
    ("Where is a new counter added?", "sidecar/subtext_sidecar/contract/counters.py"),
    ("Who takes over a dead worker's messages?", "workers/consumer/queue.py"),
    ("When does the worker stop to trust its decoder?", "workers/consumer/decoder_health.py"),
    ("Where is the verbalizer's prompt built?", "workers/nla/engine/prompt.py"),
    ("Which position is of the chat template?", "workers/nla/positions.py"),
    ("What must a reading exceed to be verified?", "workers/calibrate/nulls.py"),
    ("When does a match become a flag?", "workers/judge/flags.py"),
    ("Which columns does a sample have?", "service/store/tables.py"),
    ("What does an expired key get?", "service/auth.py"),
    ("Who writes down that a text is read?", "service/api/access/gate.py"),
    ("What was not looked at?", "service/coverage/blind_spots.py"),
    ("How is the demo's vLLM started?", "deploy/local/launch.py"),
)
"""What a newcomer asks, and the file that answers it."""


class UnlistedError(ValueError):
    """A folder of code that the document has no place for, or a file that is gone."""


def render() -> str:
    """Return the document; UnlistedError names a folder or file that the lists above have wrong."""
    known = {folder for _, folder in FOLDERS}
    found = {
        path.parent.relative_to(ROOT).as_posix()
        for top in sorted({folder.partition("/")[0] for folder in known})
        for path in (ROOT / top).rglob("*.py")
    }
    if missing := sorted(found - known):
        raise UnlistedError(f"deploy/checks/files.py: FOLDERS: say where {', '.join(missing)} belong")
    if gone := [path for _, path in QUESTIONS if not (ROOT / path).exists()]:
        raise UnlistedError(f"deploy/checks/files.py: QUESTIONS: there is no {', '.join(gone)}")
    index = "".join(f"| {question} | `{path}` |\n" for question, path in QUESTIONS)
    return _HEAD + index + "".join(_section(heading, folder) for heading, folder in FOLDERS)


def first_line(path: Path) -> str:
    """Return the first line of a module's docstring, without its full stop."""
    lines = (ast.get_docstring(ast.parse(path.read_text())) or "").splitlines()
    return lines[0].removesuffix(".") if lines else ""


def main(argv: list[str]) -> int:
    """Compare or write; returns 1 when the document is not what the tree says."""
    parser = argparse.ArgumentParser(prog="python -m deploy.checks.files", description=main.__doc__)
    parser.add_argument("--write", action="store_true")
    wanted = render()
    if parser.parse_args(argv).write:
        DOCUMENT.write_text(wanted)
        return 0
    if DOCUMENT.exists() and DOCUMENT.read_text() == wanted:
        return 0
    sys.stderr.write("docs/files.md is out of date: python -m deploy.checks.files --write\n")
    return 1


def _section(heading: str, folder: str) -> str:
    top = f"\n## {heading}\n" if heading else ""
    package = ROOT / folder / "__init__.py"
    about = f": {first_line(package)}" if package.exists() and first_line(package) else ""
    rows = "".join(
        f"| `{path.name}` | {first_line(path)} |\n"
        for path in sorted((ROOT / folder).glob("*.py"))
        if path.name != "__init__.py"
    )
    return f"{top}\n**{folder}/**{about}\n" + (
        f"\n| file | what it does |\n|---|---|\n{rows}" if rows else ""
    )


_HEAD = """\
# Every file in a line

Generated from the files' own first lines by `python -m deploy.checks.files --write`; `make check` compares
it. The order is the one in which an activation meets them.

| question | file |
|---|---|
"""


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

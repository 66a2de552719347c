"""A decoder whose prompt would be another one tomorrow does not start."""

import os
import subprocess
import sys
from pathlib import Path

from tests.support.nla import families
from tests.support.worker import environment
from workers.settings import WorkerSettings

DATED = "{{ 'Today is ' + strftime_now('%d %b %Y') + '\n' }}"


def test_a_worker_refuses_a_template_that_prints_todays_date(
    worker_settings: WorkerSettings, tmp_path: Path
) -> None:
    decoder = families.write_pair(families.QWEN2, tmp_path / "decoder")
    template = decoder / "av" / "chat_template.jinja"
    template.write_text(DATED + template.read_text())
    settings = worker_settings.model_copy(update={"decoder_dir": decoder})

    ended = subprocess.run(
        [sys.executable, "-m", "service.cli", "worker"],
        env=os.environ | environment(settings),
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )

    assert ended.returncode == 2, ended.stdout + ended.stderr
    assert "prompt_templates.date: missing" in ended.stderr

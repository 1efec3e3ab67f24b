"""The pictures in the README, made of this state: `make pictures`. Needs Chromium, and a minute for the probe."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from dataclasses import replace
from pathlib import Path

from memory_harness.configs.cli import parse_args
from memory_harness.reports.command_probe import probe
from memory_harness.reports.html import html_text
from memory_harness.reports.terminal import svg_text

PICTURES = Path(__file__).parents[1] / "reports" / "pictures"
COMMAND = ("--max-length", "2048", "--samples", "4000")
BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
WIDTH, HEIGHT = 1100, 1500


def main() -> int:
    """Run the probe that the README begins with, and draw its report and the top of its page, light and dark."""
    browser = next((path for name in BROWSERS if (path := shutil.which(name))), None)
    if browser is None:
        print(f"needs a browser: none of {', '.join(BROWSERS)} is installed", file=sys.stderr)
        return 2
    # in the pictures the command begins with `python`, as where the environment is activated
    os.environ["PATH"] = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    with tempfile.TemporaryDirectory() as folder:
        page = Path(folder) / "report.html"
        command = parse_args(COMMAND)
        command = replace(command, config=command.config.with_fields(output=folder))
        result, _ = probe(command, COMMAND, lambda logs: None)
        (PICTURES / "report.svg").write_text(svg_text(result), encoding="utf-8")
        page.write_text(html_text(result), encoding="utf-8")
        for name, scheme in (("light", 1), ("dark", 0)):
            picture(browser, page, PICTURES / f"html_{name}.png", scheme)
    return 0


def picture(browser: str, page: Path, target: Path, scheme: int) -> None:
    """Draw the top of a page; the scheme is 1 for light and 0 for dark."""
    with tempfile.TemporaryDirectory() as profile:
        flags = [f"--screenshot={target}", f"--window-size={WIDTH},{HEIGHT}", "--hide-scrollbars"]
        flags += [f"--blink-settings=preferredColorScheme={scheme}", f"--user-data-dir={profile}"]
        sandbox = ["--no-sandbox"] if os.geteuid() == 0 else []
        command = [browser, "--headless", "--disable-gpu", *sandbox, *flags, page.as_uri()]
        subprocess.run(command, check=True, capture_output=True)


if __name__ == "__main__":
    sys.exit(main())

"""Write docs/screens/report.png: a run's report as Chromium shows it.

`python -m tools.report_screen logs/RUN/report_RUN.html`; it needs Chromium, and nothing of the network.
"""

import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

TARGET = Path(__file__).resolve().parent.parent / "docs" / "screens" / "report.png"
_BROWSERS = ("chromium", "chromium-browser", "google-chrome")
_SIZE = "1200,1700"


def main(arguments: list[str]) -> int:
    """Take the picture; return the exit status."""
    browser = next((found for name in _BROWSERS if (found := shutil.which(name))), None)
    if len(arguments) != 1 or browser is None:
        sys.stderr.write("usage: python -m tools.report_screen REPORT.html (and Chromium on the PATH)\n")
        return 2
    with tempfile.TemporaryDirectory() as profile:
        command = [browser, "--headless=new", "--no-sandbox", "--disable-gpu", "--hide-scrollbars"]
        command += [f"--user-data-dir={profile}", f"--window-size={_SIZE}", f"--screenshot={TARGET}"]
        done = subprocess.run([*command, Path(arguments[0]).resolve().as_uri()], stderr=subprocess.DEVNULL)
    return done.returncode


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

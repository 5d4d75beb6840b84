"""The four dashboards of deploy/grafana.

How they are meant to be read, at three in the morning: the fleet's top row says whether something is wrong,
the next one whether anybody suffers, the rest where. Each panel's `i` says what to do. Every query has a
value on a healthy fleet that works: docs/dashboard-queries.md shows them.
"""

import json
from pathlib import Path

from tools.fleet_board import FLEET
from tools.model_board import MODEL_SERVERS
from tools.panels import rendered
from tools.request_board import REQUESTS
from tools.run_board import RUN

ROOT = Path(__file__).resolve().parent.parent
FOLDER = ROOT / "deploy" / "grafana" / "dashboards"

ALL = (FLEET, MODEL_SERVERS, RUN, REQUESTS)


def dashboard_files() -> dict[Path, str]:
    """Return the dashboards' JSON by path."""
    return {
        FOLDER / f"{one.slug}.json": json.dumps(rendered(one), indent=2, ensure_ascii=False) + "\n"
        for one in ALL
    }

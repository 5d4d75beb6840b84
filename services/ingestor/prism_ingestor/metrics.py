"""The ingestor's metrics, each declared once."""

from prometheus_client import Counter, Gauge

from prism.service.metrics import new_registry

REGISTRY = new_registry()

ACTIVE = Gauge("prism_ingestor_active", "1 on the ingestor that feeds, 0 on a stand-by.", registry=REGISTRY)
RUNS = Counter("prism_ingestor_runs", "Runs by the state that they reached.", ["state"], registry=REGISTRY)
RUNS_OPEN = Gauge("prism_ingestor_runs_open", "Runs that have not ended.", registry=REGISTRY)
BATCHES_FED = Counter("prism_ingestor_batches_fed", "Batches fed for the first time.", registry=REGISTRY)
# More than a few of these mean that results or batches vanish: look at retention and at the broker's disks.
BATCHES_FED_AGAIN = Counter("prism_ingestor_batches_fed_again", "Lost batches fed again.", registry=REGISTRY)
WINDOW = Gauge("prism_ingestor_window_batches", "Most unmerged batches of one run.", registry=REGISTRY)
UNMERGED = Gauge(
    "prism_ingestor_unmerged_batches", "Batches fed and not merged, over all runs.", registry=REGISTRY
)
DEAD_LETTERS = Counter("prism_ingestor_dead_letters", "Messages that could not be used.", registry=REGISTRY)
TAKEOVERS = Counter(
    "prism_ingestor_takeovers", "Times that this process became the active one.", registry=REGISTRY
)

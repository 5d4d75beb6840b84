"""The names of Ollama's cloud models: https://docs.ollama.com/cloud

On a signed-in Ollama such a model has a source in its tag (`gpt-oss:120b-cloud`, `glm-4.6:cloud`); the
cloud itself knows it by the bare name (`gpt-oss:120b`, `glm-4.6`). As in Ollama's `internal/modelref`, only
the tag counts: `my-cloud-model` is a local model.
"""

CLOUD_HOST = "https://ollama.com"
_WHOLE_TAG = ":cloud"
_TAG_END = "-cloud"


def is_cloud(name: str) -> bool:
    """Return whether a name means a model of the cloud."""
    return bare_name(name) != name


def bare_name(name: str) -> str:
    """Return the name by which the cloud knows a cloud model; any other name as it is."""
    folded = name.lower()
    if folded.endswith(_WHOLE_TAG) and len(name) > len(_WHOLE_TAG):
        return name[: -len(_WHOLE_TAG)]
    if folded.endswith(_TAG_END) and len(_tag(name)) > len(_TAG_END):
        return name[: -len(_TAG_END)]
    return name


def cloud_name(bare: str) -> str:
    """Return the name by which a signed-in Ollama knows a model of the cloud."""
    return bare + (_TAG_END if _tag(bare) else _WHOLE_TAG)


def _tag(name: str) -> str:
    # A colon before a slash belongs to a registry's port.
    return name.rpartition("/")[2].partition(":")[2]

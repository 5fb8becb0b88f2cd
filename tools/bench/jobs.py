"""The one job that every row runs, as each side wants it told."""

ARGS = ["/bin/echo", "42"]
EXPECTED = "42\n"
ACTIVE_LIMIT_S = 60


def spec(image: str, lane: str, args: list[str] | None = None) -> dict:
    """A jobspec; its uid and times are filled in by whoever submits it."""
    return {"apiVersion": "cellrun.dev/v1", "kind": "Job", "metadata": {"name": "bench", "namespace": "bench"},
            "spec": {"minTier": 0 if lane == "process" else 2, "lane": lane,
                     "container": {"image": image, "command": args or ARGS},
                     "resources": {"limits": {"cpu": "1", "memory": "128Mi", "pids": 64}},
                     "activeDeadlineSeconds": ACTIVE_LIMIT_S, "startDeadlineSeconds": 120}}

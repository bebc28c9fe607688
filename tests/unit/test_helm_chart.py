"""The Helm chart, rendered by Helm itself: valid against the fields of KubeRay's CRD that it uses, and what it says."""

import json
import re
from pathlib import Path
from typing import Any

import helm_python
import jsonschema
import pytest
import yaml

from millrace.cluster.figures import KNOWN

CHART = Path(__file__).parents[2] / "helm" / "millrace"
TEXT = {"type": "string", "minLength": 1}
COUNT = {"type": "integer", "minimum": 0}


def closed(required: str, **properties: Any) -> dict[str, Any]:
    """An object with these properties and no others; names in `required` must be there."""
    return {
        "type": "object",
        "additionalProperties": False,
        "properties": properties,
        "required": required.split(),
    }


def listed(item: Any) -> dict[str, Any]:
    return {"type": "array", "items": item, "minItems": 1}


MAP = {"type": "object", "additionalProperties": {"type": "string"}}
OBJECT = {"type": "object", "minProperties": 1}
META = closed("", name=TEXT, labels=MAP, annotations=MAP)
ENV = closed("name", name=TEXT, value={"type": "string"}, valueFrom=OBJECT)
CONTAINER = closed(
    "name image",
    name=TEXT,
    image=TEXT,
    imagePullPolicy={"enum": ["Always", "IfNotPresent", "Never"]},
    command=listed(TEXT),
    args=listed(TEXT),
    ports=listed(closed("name containerPort", name=TEXT, containerPort=COUNT)),
    env=listed(ENV),
    envFrom=listed(closed("secretRef", secretRef=closed("name", name=TEXT))),
    resources=closed("", requests=MAP, limits=MAP),
    securityContext=OBJECT,
    volumeMounts=listed(closed("name mountPath", name=TEXT, mountPath=TEXT, readOnly={"type": "boolean"})),
)
POD = closed(
    "containers",
    terminationGracePeriodSeconds=COUNT,
    restartPolicy={"enum": ["OnFailure"]},
    serviceAccountName=TEXT,
    imagePullSecrets=listed(closed("name", name=TEXT)),
    securityContext=OBJECT,
    nodeSelector=MAP,
    tolerations=listed(OBJECT),
    affinity=OBJECT,
    topologySpreadConstraints=listed(OBJECT),
    containers=listed(CONTAINER),
    volumes=listed(OBJECT),
)
TEMPLATE = closed("spec", metadata=META, spec=POD)
STORAGE = closed("", size=TEXT, storageClassName=TEXT, claimName=TEXT)
WORKERS = closed(
    "groupName rayStartParams template",
    groupName=TEXT,
    replicas=COUNT,
    minReplicas=COUNT,
    maxReplicas=COUNT,
    rayStartParams=MAP,
    template=TEMPLATE,
)
CLUSTER = closed(
    "apiVersion kind metadata spec",
    apiVersion={"const": "ray.io/v1"},
    kind={"const": "RayCluster"},
    metadata=META,
    spec=closed(
        "rayVersion headGroupSpec workerGroupSpecs",
        rayVersion=TEXT,
        authOptions=closed("mode", mode={"enum": ["token", "disabled"]}, secretName=TEXT),
        gcsFaultToleranceOptions=closed("backend", backend={"enum": ["rocksdb"]}, storage=STORAGE),
        headGroupSpec=closed("rayStartParams template", rayStartParams=MAP, template=TEMPLATE),
        workerGroupSpecs=listed(WORKERS),
    ),
)
JOB = closed(
    "apiVersion kind metadata spec",
    apiVersion={"const": "batch/v1"},
    kind={"const": "Job"},
    metadata=META,
    spec=closed("template", backoffLimit=COUNT, ttlSecondsAfterFinished=COUNT, template=TEMPLATE),
)


def values(name: str) -> dict[str, Any]:
    found = yaml.safe_load((CHART / "ci" / f"{name}-values.yaml").read_text())
    assert isinstance(found, dict)
    return found


def rendered(given: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """What the chart comes to, by kind and name."""
    with helm_python.Chart.load(str(CHART)) as chart:
        texts = chart.render(given, name="r", namespace="streams")
    documents = [d for n, t in texts.items() if n.endswith(".yaml") for d in yaml.safe_load_all(t) if d]
    return {f"{d['kind']}/{d['metadata']['name']}": d for d in documents}


@pytest.mark.parametrize("name", ["default", "full"])
def test_helm_finds_nothing_to_complain_about(name: str) -> None:
    found = helm_python.lint(str(CHART), values(name), strict=True)
    assert not found["errors"]
    assert [m["error"] for m in found["messages"]] in ([], ["icon is recommended"])


@pytest.mark.parametrize("name", ["default", "full"])
def test_the_cluster_is_one_that_kuberay_takes(name: str) -> None:
    cluster = rendered(values(name))["RayCluster/r-millrace"]
    jsonschema.validate(cluster, CLUSTER)
    spec = cluster["spec"]
    assert spec["headGroupSpec"]["rayStartParams"]["num-cpus"] == "0"
    assert spec["authOptions"]["mode"] == "token"
    for group in (spec["headGroupSpec"], *spec["workerGroupSpecs"]):
        pod = group["template"]["spec"]
        env = {e["name"]: e.get("value") for e in pod["containers"][0]["env"]}
        assert pod["terminationGracePeriodSeconds"] > int(env["RAY_GRACEFUL_SHUTDOWN_DRAIN_TIMEOUT_S"])
        assert env["RAY_worker_niceness"] == "0" and env["RAY_AUTH_MODE"] == "token"
        assert {"name": "metrics", "containerPort": 8080} in pod["containers"][0]["ports"]
        assert group["rayStartParams"]["metrics-export-port"] == "8080"


def test_slips_are_found_by_the_schema() -> None:
    cluster = rendered({})["RayCluster/r-millrace"]
    cluster["spec"]["workerGroupSpecs"][0]["replicaz"] = 1
    with pytest.raises(jsonschema.ValidationError, match="replicaz"):
        jsonschema.validate(cluster, CLUSTER)


def test_by_default_there_is_a_cluster_and_nothing_else() -> None:
    assert list(rendered(values("default"))) == ["RayCluster/r-millrace"]


def test_everything_on() -> None:
    found = rendered(values("full"))
    assert sorted(found) == [
        "ConfigMap/r-millrace-dashboard",
        "ConfigMap/r-millrace-submit",
        "Job/r-millrace-submit-1",
        "PodMonitor/r-millrace",
        "RayCluster/r-millrace",
    ]
    spec = found["RayCluster/r-millrace"]["spec"]
    assert spec["gcsFaultToleranceOptions"] == {
        "backend": "rocksdb",
        "storage": {"size": "10Gi", "storageClassName": "fast"},
    }
    groups = {g["groupName"]: g for g in spec["workerGroupSpecs"]}
    assert groups["general"]["maxReplicas"] == 6 and groups["large"]["replicas"] == 1
    large = groups["large"]["template"]["spec"]["containers"][0]
    assert large["resources"]["requests"]["cpu"] == "8"
    assert large["envFrom"] == [{"secretRef": {"name": "s3-credentials"}}]
    job = found["Job/r-millrace-submit-1"]
    jsonschema.validate(job, JOB)
    pod = job["spec"]["template"]["spec"]
    assert pod["containers"][0]["args"] == [
        "--address=ray://r-millrace-head-svc:10001",
        "--store=s3://streams/checkpoints",
        "--job=fraud",
        "--partitions=6",
        "--checkpoint-interval=2.5",
        "--cpus=0.5",
        "--set=TOPIC=a, b",
        "--set=batch.max_rows=8192",
    ]
    assert pod["volumes"][0]["configMap"]["name"] == "r-millrace-submit"
    assert (
        found["ConfigMap/r-millrace-submit"]["data"]["job.sql"].strip()
        == values("full")["job"]["sql"].strip()
    )
    monitor = found["PodMonitor/r-millrace"]["spec"]
    assert monitor["podMetricsEndpoints"][0]["honorLabels"] is True
    assert monitor["selector"]["matchLabels"] == {"ray.io/cluster": "r-millrace"}
    assert found["ConfigMap/r-millrace-dashboard"]["metadata"]["labels"]["grafana_dashboard"] == "1"


@pytest.mark.parametrize(
    ("given", "word"),
    [
        ({"worker": {"replicaz": 2}}, "replicaz"),
        ({"terminationGracePeriodSeconds": 30}, "terminationGracePeriodSeconds"),
        ({"checkpoints": {"store": "bucket"}}, "store"),
        ({"worker": {"minReplicas": 3}}, "minReplicas"),
        ({"job": {"enabled": True, "sql": "SELECT 1"}}, "checkpoints.store"),
        ({"job": {"enabled": True}, "checkpoints": {"store": "s3://b"}}, "sqlConfigMap"),
    ],
)
def test_values_that_do_not_do_are_refused(given: dict[str, Any], word: str) -> None:
    with pytest.raises(helm_python.HelmError, match=word):
        rendered(given)


def test_the_dashboard_asks_for_metrics_that_there_are() -> None:
    board = json.loads((CHART / "dashboards" / "millrace.json").read_text())
    asked = set(re.findall(r"ray_millrace_(\w+?)\{", json.dumps(board["panels"])))
    kinds = {name + "_total" if kind == "counter" else name for name, (kind, _) in KNOWN.items()}
    assert asked and asked <= kinds
    assert len({panel["id"] for panel in board["panels"]}) == len(board["panels"])


def test_the_image_has_the_ray_of_the_chart() -> None:
    wanted = yaml.safe_load((CHART / "values.yaml").read_text())["ray"]["version"]
    assert f"ARG RAY_VERSION={wanted}" in (CHART.parent / "Dockerfile").read_text()

"""scripts/rayjob.yaml, by the schema of KubeRay's job, by Kubernetes' own of its pods, and by what must hold of it."""

from __future__ import annotations

import shlex
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jsonschema
import kubernetes_validate
import pytest
import yaml

ROOT = Path(__file__).resolve().parents[1]
KUBERNETES = ("1.30", "1.37")
"""Versions of 2024 and of 2026."""


@pytest.fixture
def job() -> dict[str, Any]:
    """The manifest, of which a test may change a part."""
    read: dict[str, Any] = yaml.safe_load((ROOT / "scripts" / "rayjob.yaml").read_text())
    return read


def cluster(job: dict[str, Any]) -> dict[str, Any]:
    part: dict[str, Any] = job["spec"]["rayClusterSpec"]
    return part


def groups(job: dict[str, Any]) -> list[dict[str, Any]]:
    return [cluster(job)["headGroupSpec"], *cluster(job)["workerGroupSpecs"]]


def check(job: dict[str, Any]) -> None:
    """Refuse what KubeRay or Kubernetes would refuse, and what either would drop without a word."""
    schema = yaml.safe_load((ROOT / "tests" / "rayjob.schema.yaml").read_text())
    jsonschema.Draft202012Validator.check_schema(schema)
    jsonschema.validate(job, schema, cls=jsonschema.Draft202012Validator)
    for group in groups(job):
        pod = {"apiVersion": "v1", "kind": "PodTemplate", "template": group["template"]}
        for version in KUBERNETES:
            kubernetes_validate.validate(pod, version, strict=True)


def test_kuberay_and_kubernetes_accept_it(job: dict[str, Any]) -> None:
    check(job)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("change", "refusal"),
    [
        (lambda job: job["spec"].update(shutdownAfterJobFinish=True), "'shutdownAfterJobFinish' was unexpected"),
        (lambda job: job["spec"].update(backoffLimit="1"), "'1' is not of type 'integer'"),
        (lambda job: job["metadata"].update(name="radiograph_sweep"), "'radiograph_sweep' does not match"),
        (lambda job: cluster(job).update(authOptions={"mode": "tokens"}), "'tokens' is not one of"),
        (lambda job: cluster(job).pop("rayVersion"), "'rayVersion' is a required property"),
        (lambda job: groups(job)[0].update(rayStartParams={"num-cpus": 0}), "0 is not of type 'string'"),
        (lambda job: groups(job)[1].pop("groupName"), "'groupName' is a required property"),
        (lambda job: groups(job)[1].update(maxReplica=4), "'maxReplica' was unexpected"),
        (lambda job: groups(job)[0]["template"]["spec"].pop("containers"), "'containers' is a required property"),
        (lambda job: groups(job)[1]["template"]["spec"].update(volume=[]), "'volume' was unexpected"),
    ],
)
def test_a_wrong_manifest_is_refused(job: dict[str, Any], change: Callable[[Any], object], refusal: str) -> None:
    change(job)
    with pytest.raises(jsonschema.ValidationError, match=refusal):
        check(job)


def test_its_cluster_is_guarded_and_its_head_runs_no_trials(job: dict[str, Any]) -> None:
    head, workers = groups(job)
    assert cluster(job)["authOptions"] == {"mode": "token"}
    assert f"\nray=={cluster(job)['rayVersion']} " in (ROOT / "requirements.lock").read_text()
    assert head["rayStartParams"] == {"num-cpus": "0"}
    assert workers["minReplicas"] == workers["replicas"] == 0 < workers["maxReplicas"]
    assert cluster(job)["enableInTreeAutoscaling"]


def test_what_its_pods_mount_is_there(job: dict[str, Any]) -> None:
    for pod in (group["template"]["spec"] for group in groups(job)):
        mounts = {mount["name"] for container in pod["containers"] for mount in container["volumeMounts"]}
        assert mounts == {volume["name"] for volume in pod["volumes"]} == {"shared"}


def test_the_sweep_is_one_command_of_the_shell_that_submits_it(job: dict[str, Any]) -> None:
    """KubeRay writes `ray job submit ... -- ENTRYPOINT ; fi` for a shell; Ray joins the words again for the head's."""
    submitted = subprocess.run(
        ["bash", "-c", f"if true ; then printf '%s\\0' -- {job['spec']['entrypoint']} ; fi"],
        capture_output=True,
        text=True,
        check=True,
    ).stdout.split("\0")[1:-1]
    assert submitted[:2] == ["bash", "-c"]
    assert submitted[2].startswith("cd /shared && python -m sweep.run --preset")
    assert shlex.split(shlex.join(submitted)) == submitted and len(submitted) == 3

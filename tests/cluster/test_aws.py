"""What may be done on AWS: the roles' policies beside what Ray's own code asks of EC2, and SSH.

The answers of EC2 are made here; nothing leaves this machine.
"""

from __future__ import annotations

import json
from typing import Any

import boto3
import pytest
import yaml
from botocore.awsrequest import AWSResponse
from commands import ROOT
from ray.autoscaler._private.aws.config import _configure_security_group
from ray.autoscaler._private.aws.node_provider import AWSNodeProvider

POLICIES = ROOT / "cluster/policies"
CONFIG: dict[str, Any] = yaml.safe_load((ROOT / "cluster/aws.yaml").read_text())
CLUSTER = {"ray-cluster-name": CONFIG["cluster_name"]}


def statements(role: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads((POLICIES / f"{role}.json").read_text())["Statement"]
    return found


def actions(role: str) -> set[str]:
    listed = [one["Action"] for one in statements(role)]
    return {name for one in listed for name in ([one] if isinstance(one, str) else one)}


class Ec2:
    """What Ray asks of EC2, with answers of one running machine."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, dict[str, Any]]] = []

    def listen(self, client: Any) -> None:
        client.meta.events.register("provide-client-params.ec2.*", self._note)
        client.meta.events.register("before-call.ec2.*", self._answer)

    def _note(self, params: dict[str, Any], model: Any, **_: Any) -> None:
        self.asked.append((model.name, params))

    def _answer(self, model: Any, **_: Any) -> tuple[AWSResponse, dict[str, Any]]:
        machine = {
            "InstanceId": "i-1",
            "State": {"Name": "running"},
            "Tags": [{"Key": key, "Value": value} for key, value in CLUSTER.items()],
        }
        answers: dict[str, dict[str, Any]] = {
            "DescribeInstances": {"Reservations": [{"Instances": [machine]}]},
            "RunInstances": {"Instances": [machine]},
        }
        return AWSResponse("", 200, {}, None), answers.get(model.name, {})


@pytest.fixture
def ec2(monkeypatch: pytest.MonkeyPatch) -> Ec2:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "nobody")
    return Ec2()


def test_the_head_may_do_what_ray_asks_for_its_machines_and_only_that(ec2: Ec2) -> None:
    provider = AWSNodeProvider({**CONFIG["provider"], "region": "eu-west-1"}, CLUSTER)
    provider.cluster_name = CONFIG["cluster_name"]
    for resource in (provider.ec2, provider.ec2_fail_fast):
        ec2.listen(resource.meta.client)
    kind = CONFIG["available_node_types"]["gpu-spot"]["node_config"]
    provider.create_node({**kind, "SubnetIds": ["subnet-1"], "KeyName": "key"}, {"a": "b"}, 1)
    assert provider.non_terminated_nodes({}) == ["i-1"]
    with provider.tag_cache_lock:
        provider.tag_cache_pending["i-1"] = {"ray-node-status": "up-to-date"}
    provider._update_node_tags()
    provider.terminate_nodes(["i-1"])
    done = {f"ec2:{name}" for name, _ in ec2.asked}
    assert {"ec2:RunInstances", "ec2:CreateTags", "ec2:TerminateInstances"} <= done
    assert done <= actions("head")
    assert (
        not actions("head")
        - done
        - {
            *(
                "ec2:DescribeInstanceTypes",
                "ec2:DescribeImages",
            ),  # by the launcher, before it starts
            "iam:PassRole",  # no call, but asked of who starts a machine with a role
        }
    )
    # The tag that the policy wants of what is started and ended.
    (started,) = [params for name, params in ec2.asked if name == "RunInstances"]
    (tags,) = [one["Tags"] for one in started["TagSpecifications"]]
    wanted = {
        key.partition("/")[2]: value
        for one in statements("head")
        for key, value in one.get("Condition", {}).get("StringEquals", {}).items()
        if "/" in key
    }
    assert wanted == CLUSTER
    assert {"Key": "ray-cluster-name", "Value": CONFIG["cluster_name"]} in tags
    (role,) = [one["Resource"] for one in statements("head") if one["Action"] == "iam:PassRole"]
    assert role.endswith(f":role/{kind['IamInstanceProfile']['Name']}")


@pytest.mark.parametrize("role", ["head", "registry", "trainer", "consumer"])
def test_policies_name_actions_that_there_are(role: str) -> None:
    for action in actions(role):
        service, _, name = action.partition(":")
        operations = (
            boto3.session.Session().client(service, region_name="eu-west-1").meta.service_model
        )
        known = {"PassRole", "ListBucket", "GetObjectVersion"}  # permissions without a call
        assert name in operations.operation_names or name in known


def test_the_image_is_pulled_from_the_registry_that_may_be_pulled_from() -> None:
    image = CONFIG["docker"]["image"].partition(":")[0]
    (where,) = [one["Resource"] for one in statements("registry") if one["Sid"] == "PullTheImage"]
    account, _, name = image.partition(".dkr.ecr.REGION.amazonaws.com/")
    assert where == f"arn:aws:ecr:REGION:{account}:repository/{name}"


def test_the_launcher_opens_no_machine_to_the_world() -> None:
    types = CONFIG["available_node_types"]
    groups = [kind["node_config"]["SecurityGroupIds"] for kind in types.values()]
    assert groups == [["sg-GROUP"]] * len(types)
    # It would make a group with SSH from everywhere here, and ask EC2 for it.
    assert _configure_security_group(CONFIG) is CONFIG

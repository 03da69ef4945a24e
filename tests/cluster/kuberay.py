"""The fields of KubeRay's ray.io/v1 that cluster/kubernetes uses, as JSON schemas.

KubeRay's own definitions come with its operator, which is not installed here. A field that is not
named here is refused, so that a slip of the pen is found before a cluster is.
"""

from __future__ import annotations

from typing import Any, Final

Schema = dict[str, Any]


def record(required: tuple[str, ...] = (), **fields: Schema) -> Schema:
    return {
        "type": "object",
        "properties": fields,
        "required": [*required],
        "additionalProperties": False,
    }


def array(items: Schema) -> Schema:
    return {"type": "array", "items": items, "minItems": 1}


def one_of(*values: str) -> Schema:
    return {"enum": [*values]}


TEXT: Final[Schema] = {"type": "string", "minLength": 1}
TEXTS: Final[Schema] = {"type": "object", "additionalProperties": {"type": "string"}}
FLAG: Final[Schema] = {"type": "boolean"}
COUNT: Final[Schema] = {"type": "integer", "minimum": 0}
NAME: Final[Schema] = {"type": "string", "pattern": "^[a-z0-9]([a-z0-9-]*[a-z0-9])?$"}
QUANTITY: Final[Schema] = {"type": "string", "pattern": r"^[0-9]+(\.[0-9]+)?(m|Ki|Mi|Gi)?$"}
QUANTITIES: Final[Schema] = {
    "type": "object",
    "propertyNames": one_of("cpu", "memory", "nvidia.com/gpu"),
    "additionalProperties": QUANTITY,
}

CONTAINER: Final = record(
    ("name", "image", "resources"),
    name=NAME,
    image=TEXT,
    env=array(record(("name", "value"), name=TEXT, value=TEXT)),
    envFrom=array(record(("secretRef",), secretRef=record(("name",), name=NAME, optional=FLAG))),
    ports=array(record(("containerPort", "name"), containerPort=COUNT, name=NAME)),
    resources=record(("requests", "limits"), requests=QUANTITIES, limits=QUANTITIES),
    volumeMounts=array(record(("name", "mountPath"), name=NAME, mountPath=TEXT)),
)
POD: Final = record(
    ("serviceAccountName", "securityContext", "containers"),
    serviceAccountName=NAME,
    securityContext=record(("runAsNonRoot",), runAsNonRoot=FLAG, runAsUser=COUNT, fsGroup=COUNT),
    terminationGracePeriodSeconds=COUNT,
    tolerations=array(
        record(
            ("key",),
            key=TEXT,
            operator=one_of("Exists", "Equal"),
            value=TEXT,
            effect=one_of("NoSchedule", "PreferNoSchedule", "NoExecute"),
        )
    ),
    containers=array(CONTAINER),
    volumes=array(
        record(
            ("name", "emptyDir"),
            name=NAME,
            emptyDir=record(medium=one_of("Memory"), sizeLimit=QUANTITY),
        )
    ),
)
TEMPLATE: Final = record(("spec",), spec=POD)
SPEC: Final = record(
    ("rayVersion", "authOptions", "headGroupSpec", "workerGroupSpecs"),
    rayVersion=TEXT,
    authOptions=record(("mode",), mode=one_of("token", "disabled")),
    enableInTreeAutoscaling=FLAG,
    autoscalerOptions=record(
        idleTimeoutSeconds=COUNT, upscalingMode=one_of("Default", "Aggressive", "Conservative")
    ),
    headGroupSpec=record(
        ("rayStartParams", "template"),
        serviceType=one_of("ClusterIP", "NodePort", "LoadBalancer"),
        rayStartParams=TEXTS,
        template=TEMPLATE,
    ),
    workerGroupSpecs=array(
        record(
            ("groupName", "replicas", "minReplicas", "maxReplicas", "rayStartParams", "template"),
            groupName=NAME,
            replicas=COUNT,
            minReplicas=COUNT,
            maxReplicas=COUNT,
            rayStartParams=TEXTS,
            template=TEMPLATE,
        )
    ),
)
CLUSTER: Final = record(
    ("apiVersion", "kind", "metadata", "spec"),
    apiVersion=one_of("ray.io/v1"),
    kind=one_of("RayCluster"),
    metadata=record(("name",), name=NAME),
    spec=SPEC,
)
JOB: Final = record(
    ("apiVersion", "kind", "metadata", "spec"),
    apiVersion=one_of("ray.io/v1"),
    kind=one_of("RayJob"),
    metadata=record(("generateName",), generateName=TEXT),
    spec=record(
        ("entrypoint", "rayClusterSpec"),
        entrypoint=TEXT,
        submissionMode=one_of("K8sJobMode", "HTTPMode", "InteractiveMode"),
        backoffLimit=COUNT,
        shutdownAfterJobFinishes=FLAG,
        ttlSecondsAfterFinished=COUNT,
        runtimeEnvYAML=TEXT,
        rayClusterSpec=SPEC,
    ),
)
ACCOUNT: Final = record(
    ("apiVersion", "kind", "metadata"),
    apiVersion=one_of("v1"),
    kind=one_of("ServiceAccount"),
    metadata=record(("name",), name=NAME, annotations=TEXTS),
)

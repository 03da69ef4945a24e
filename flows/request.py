"""What a run of the pipeline is asked for."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, JsonValue

Revision = Annotated[
    str,
    Field(description="Commit, branch or tag to run; what is not committed is not part of it."),
]
Teachers = Annotated[
    list[str],
    Field(description="Teachers, keys of `models` in params.yaml; none: those of params.yaml."),
]
Overrides = Annotated[
    dict[str, JsonValue],
    Field(
        description="Other values for keys of params.yaml, "
        'for example {"distillation.student.temperature": 4}.'
    ),
]
Pull = Annotated[bool, Field(description="Fetch what the remote has before running stages.")]
Push = Annotated[bool, Field(description="Send what was made to the remote after the stages.")]
Remote = Annotated[
    str | None, Field(description="DVC remote to pull from and push to; none: DVC's default.")
]
Cluster = Annotated[
    str | None,
    Field(
        description="Ray cluster to train on: http://HOST:8265 submits jobs to it, HOST:6379 joins "
        "it; none: this machine."
    ),
]
StagesAtOnce = Annotated[
    int, Field(ge=1, le=64, description="How many stages of this run may run side by side.")
]
Keep = Annotated[
    bool,
    Field(
        description="Keep the run's worktree and commit its results on a branch; otherwise drop "
        "the worktree when all went well, unless another run kept it."
    ),
]
OnlyIfDataChanged = Annotated[
    bool, Field(description="Train only if the shards differ from those of the last training.")
]


class Request(BaseModel):
    """Word images in; teachers, assistants, students and the report out, in a worktree."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    revision: Revision = "HEAD"
    teachers: Teachers = []
    overrides: Overrides = {}
    pull: Pull = True
    push: Push = False
    remote: Remote = None
    cluster: Cluster = None
    stages_at_once: StagesAtOnce = 1
    keep: Keep = True
    only_if_data_changed: OnlyIfDataChanged = False

    @property
    def jobs(self) -> bool:
        """Whether trainings become jobs on the cluster."""
        return (self.cluster or "").startswith(("http://", "https://"))

    @property
    def settings(self) -> dict[str, JsonValue]:
        """The keys of params.yaml that get another value."""
        chosen: dict[str, JsonValue] = {"teachers": list(self.teachers)} if self.teachers else {}
        return {**self.overrides, **chosen}

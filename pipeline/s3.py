"""Talking to S3: one way to make a client, to read an address, and to say what went wrong.

Where S3 is and who asks comes from where boto3 looks: the environment (``AWS_ENDPOINT_URL``,
``AWS_ACCESS_KEY_ID`` and their like), a profile, or the role of the machine.
"""

from __future__ import annotations

import os
from typing import Any, Final

import boto3
from botocore.config import Config
from botocore.exceptions import (
    BotoCoreError,
    ClientError,
    HTTPClientError,
    IncompleteReadError,
    NoCredentialsError,
    PartialCredentialsError,
)
from botocore.exceptions import (
    ConnectionError as Unreachable,
)

from pipeline.errors import DataError, DistillError, StorageError, UsageError

SCHEME: Final = "s3://"
ATTEMPTS: Final = 5
"""How often a request is tried: with jitter, and waits that double up to 20 s between."""
_KINDS: Final = {
    "refused": (
        *("403", "AccessDenied", "AccountProblem", "AllAccessDisabled", "Forbidden"),
        *("InvalidAccessKeyId", "InvalidToken", "SignatureDoesNotMatch", "UnauthorizedAccess"),
    ),
    "expired": ("ExpiredToken", "ExpiredTokenException", "RequestExpired", "TokenRefreshRequired"),
    "no bucket": ("NoSuchBucket",),
    "no object": ("404", "NoSuchKey", "NoSuchVersion", "NotFound"),
    "elsewhere": ("301", "AuthorizationHeaderMalformed", "PermanentRedirect"),
    "clock": ("RequestTimeTooSkewed",),
}
_PASSING: Final = {"SlowDown", "RequestTimeout", "TooManyRequests", "Throttling", "429"}
_KIND_OF: Final = {code: kind for kind, codes in _KINDS.items() for code in codes}


def client(attempts: int = ATTEMPTS) -> Any:
    """A client for the S3 of this process's environment; threads may share it, processes may not.

    Args:
        attempts: how often a request is tried before its error is raised.

    Raises:
        UsageError: the environment names no such profile, or an endpoint that is no address.
    """
    config = Config(
        retries={"mode": "standard", "total_max_attempts": attempts},
        connect_timeout=5,
        read_timeout=20,
        max_pool_connections=32,
    )
    try:
        return boto3.session.Session().client("s3", config=config)
    except ValueError as error:
        raise UsageError(
            f"{error}: AWS_ENDPOINT_URL is no address, write http://HOST:PORT or https://HOST"
        ) from error
    except BotoCoreError as error:
        raise UsageError(f"{error}: mend the AWS settings of the environment") from error


def is_uri(text: str) -> bool:
    """Whether this is the address of something in S3."""
    return text.startswith(SCHEME)


def parse(uri: str) -> tuple[str, str]:
    """The bucket and the key (or prefix, without a slash at its end) of ``s3://bucket/key``.

    Raises:
        UsageError: it is no such address.
    """
    bucket, _, key = uri.removeprefix(SCHEME).partition("/")
    if not is_uri(uri) or not bucket:
        raise UsageError(f"{uri} is no address in S3: write s3://BUCKET/KEY")
    return bucket, key.strip("/")


def explained(error: BotoCoreError | ClientError, uri: str) -> DistillError:
    """What an error of boto3 means for who asked for ``uri``, and what to do about it.

    Returns:
        A UsageError where the caller's settings are wrong, a DataError where something is not
        there, a StorageError where the server failed and another try may help.
    """
    where = f"{uri} at {endpoint()}"
    if isinstance(error, ClientError):
        return _answered(error, uri, where)
    if isinstance(error, NoCredentialsError | PartialCredentialsError):
        return UsageError(
            f"no credentials for {where} ({error}): source .s3/env after make s3, or set "
            "AWS_PROFILE, or AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"
        )
    if isinstance(error, Unreachable | HTTPClientError | IncompleteReadError):
        return StorageError(
            f"{where} cannot be reached ({error}): check AWS_ENDPOINT_URL and that the server "
            "runs (make s3 starts the local one), then run the same command again"
        )
    return UsageError(f"{where} cannot be asked for ({error}): mend the AWS settings")


def _answered(error: ClientError, uri: str, where: str) -> DistillError:
    code = str(error.response["Error"].get("Code", ""))
    bucket = uri.removeprefix(SCHEME).split("/")[0]
    match _KIND_OF.get(code):
        case "refused":
            found: DistillError = UsageError(
                f"{where} is refused ({code}; bucket {bucket}, {identity()}): check that the key "
                "and its secret belong to this endpoint, and that the policy of their owner allows "
                f"{error.operation_name} there (docs/s3.md)"
            )
        case "expired":
            found = UsageError(
                f"the credentials for {where} have expired ({code}; {identity()}): renew them and "
                "run the same command again"
            )
        case "no bucket":
            found = DataError(
                f"there is no bucket {bucket} at {endpoint()}: check the name (S3_BUCKET) and "
                "AWS_ENDPOINT_URL"
            )
        case "no object":
            found = DataError(f"there is no {where}: check the address, or push it first")
        case "elsewhere":
            found = UsageError(
                f"bucket {bucket} is in another region ({code}): set AWS_DEFAULT_REGION to its own"
            )
        case "clock":
            found = UsageError(f"{where} is refused ({code}): set this machine's clock")
        case _ if is_passing(error):
            found = StorageError(
                f"{where} failed with {_status(error)} {code}, after every retry: run the same "
                "command again when the server is well"
            )
        case _:
            found = UsageError(
                f"{where} answers {_status(error)} {code} to {error.operation_name}: the server "
                "will not have it, another try is in vain"
            )
    return found


def is_passing(error: ClientError) -> bool:
    """Whether a refusal is one that another try may not meet."""
    code = str(error.response.get("Error", {}).get("Code", ""))
    return _status(error) >= 500 or code in _PASSING


def _status(error: ClientError) -> int:
    return int(error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0))


def endpoint() -> str:
    """The S3 that is asked, for people to read."""
    return endpoint_url() or "the endpoint of the AWS profile"


def endpoint_url() -> str | None:
    """The address of the S3 that is asked, where the environment names one."""
    return os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL")


def identity() -> str:
    """Who asks: the end of the access key's name, and where it comes from; never a secret."""
    try:
        found = boto3.session.Session().get_credentials()
    except BotoCoreError as error:
        return f"no identity, {error}"
    if found is None:
        return "no identity"
    return f"access key ...{found.access_key[-4:]} from {found.method}"

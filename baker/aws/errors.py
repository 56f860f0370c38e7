"""Translate the errors of botocore into bake's.

BakeError
|-- AwsError           AWS refused a request, or did not reach a state in time
`-- HostError          no region, an unknown profile, missing permissions
    `-- UnreachableError   no network, or no credentials that AWS accepts
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from baker.core.errors import BakeError, BuildError, HostError

CREDENTIALS = frozenset(
    {
        "AuthFailure", "ExpiredToken", "ExpiredTokenException", "InvalidClientTokenId", "RequestExpired", "SignatureDoesNotMatch",
        "UnrecognizedClientException", "OptInRequired", "InvalidAccessKeyId",
    }
)  # fmt: skip
FORBIDDEN = frozenset({"AccessDenied", "AccessDeniedException", "UnauthorizedOperation", "Client.UnauthorizedOperation"})
NO_CREDENTIALS_HINT = "run `aws configure` or `aws sso login`, set AWS_PROFILE, or use an instance role"


class AwsError(BuildError):
    """AWS refused a request. `aws_code` is AWS's own code ("InvalidAMIID.NotFound"), `action` the API call ("DescribeImages")."""

    default_code = "aws.refused"

    def __init__(self, message: str, *, aws_code: str = "", action: str = "", hint: str = "", code: str = "") -> None:
        super().__init__(message, hint=hint, code=code)
        self.aws_code = aws_code
        self.action = action

    @property
    def missing(self) -> bool:
        """Whether the requested resource does not exist (or is not visible yet, just after it was created)."""
        return self.aws_code.endswith((".NotFound", "NotFoundException", ".Unknown", ".VersionNotFound")) or self.aws_code in (
            "InvalidSnapshot.NotFound", "InvalidAMIID.Unavailable", "ParameterNotFound", "ResourceNotFoundException",
        )  # fmt: skip


class UnreachableError(HostError):
    """AWS cannot be used now: there is no network, or AWS does not accept the credentials. The work can be resumed later."""

    default_code = "aws.unreachable"


@contextmanager
def translated(what: str) -> Iterator[None]:
    """Translate botocore's errors from the body into bake's. `what` is the subject for the message ("the image ami-1 in eu-west-1").

    Raises UnreachableError without credentials or network, HostError without a region or permission, AwsError for any other refusal.
    """
    from botocore import exceptions as boto

    try:
        yield
    except BakeError:
        raise
    except boto.ClientError as error:
        raise _refused(error, what) from error
    except (boto.NoCredentialsError, boto.PartialCredentialsError, boto.CredentialRetrievalError) as error:
        raise UnreachableError(f"{what}: no AWS credentials: {error}", hint=NO_CREDENTIALS_HINT, code="aws.no-credentials") from error
    except (boto.UnauthorizedSSOTokenError, boto.SSOTokenLoadError) as error:
        raise UnreachableError(f"{what}: {error}", hint="log in with `aws sso login`", code="aws.sso-login") from error
    except boto.ProfileNotFound as error:
        raise HostError(f"{what}: {error}", hint="`aws configure list-profiles` lists the profiles", code="aws.no-profile") from error
    except boto.NoRegionError as error:
        raise no_region() from error
    except boto.ParamValidationError as error:
        raise AwsError(f"{what}: {error}", aws_code="ParamValidation") from error
    except (boto.BotoCoreError, OSError) as error:
        raise UnreachableError(
            f"{what}: AWS cannot be reached: {error}", hint="check the network, and the proxy if there is one"
        ) from error


def no_region() -> HostError:
    """The error for a session without a region."""
    return HostError(
        "no AWS region is configured", hint="set builder.region in the template, AWS_REGION, or run `aws configure`", code="aws.no-region"
    )


def no_credentials() -> HostError:
    """The error for a session without credentials."""
    return HostError("no AWS credentials were found", hint=NO_CREDENTIALS_HINT, code="aws.no-credentials")


def _refused(error: Exception, what: str) -> BakeError:
    response = getattr(error, "response", {})
    action = str(getattr(error, "operation_name", ""))
    code = str(response.get("Error", {}).get("Code", ""))
    message = str(response.get("Error", {}).get("Message", "")) or code
    if code in CREDENTIALS:
        return UnreachableError(
            f"{what}: AWS does not accept the credentials: {message} ({code})",
            hint="check them with `aws sts get-caller-identity`, or renew them with `aws sso login`",
            code="aws.credentials-rejected",
        )
    if code in FORBIDDEN:
        return HostError(
            f"{what}: not allowed to {action}: {message}", hint="docs/aws.md has the IAM policy that bake needs", code="aws.forbidden"
        )
    return AwsError(f"{what}: {message} ({code} of {action})", aws_code=code, action=action)

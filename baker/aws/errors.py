"""What AWS says, in bake's words."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from baker.core.errors import BakeError, BuildError, HostError

WHO = frozenset(
    {
        "AuthFailure", "ExpiredToken", "ExpiredTokenException", "InvalidClientTokenId", "RequestExpired", "SignatureDoesNotMatch",
        "UnrecognizedClientException", "OptInRequired", "InvalidAccessKeyId",
    }
)  # fmt: skip
FORBIDDEN = frozenset({"AccessDenied", "AccessDeniedException", "UnauthorizedOperation", "Client.UnauthorizedOperation"})


class AwsError(BuildError):
    """AWS refused. `aws_code` is AWS's own code ("InvalidAMIID.NotFound"), `action` the API call ("DescribeImages")."""

    default_code = "aws.refused"

    def __init__(self, message: str, *, aws_code: str = "", action: str = "", hint: str = "", code: str = "") -> None:
        super().__init__(message, hint=hint, code=code)
        self.aws_code = aws_code
        self.action = action

    @property
    def missing(self) -> bool:
        """Whether what was asked for does not exist (or, just after it was created, not yet)."""
        return self.aws_code.endswith((".NotFound", "NotFoundException", ".Unknown", ".VersionNotFound")) or self.aws_code in (
            "InvalidSnapshot.NotFound", "InvalidAMIID.Unavailable", "ParameterNotFound", "ResourceNotFoundException",
        )  # fmt: skip


class UnreachableError(HostError):
    """AWS does not hear us now: no network, or no credentials that it accepts. What was begun can be gone on with once it does."""

    default_code = "aws.unreachable"


@contextmanager
def translated(what: str) -> Iterator[None]:
    """Turn the errors of botocore into bake's; `what` was being done ("the image ami-1 in eu-west-1").

    UnreachableError: no credentials, no network. HostError: no region, not allowed. AwsError: everything else that AWS refuses."""
    from botocore import exceptions as boto

    try:
        yield
    except BakeError:
        raise
    except boto.ClientError as error:
        raise _refused(error, what) from error
    except (boto.NoCredentialsError, boto.PartialCredentialsError, boto.CredentialRetrievalError) as error:
        raise UnreachableError(
            f"{what}: no AWS credentials: {error}", hint="aws configure, aws sso login, AWS_PROFILE, or an instance role"
        ) from error
    except (boto.UnauthorizedSSOTokenError, boto.SSOTokenLoadError) as error:
        raise UnreachableError(f"{what}: {error}", hint="aws sso login") from error
    except boto.ProfileNotFound as error:
        raise HostError(f"{what}: {error}", hint="aws configure list-profiles") from error
    except boto.NoRegionError as error:
        raise no_region() from error
    except boto.ParamValidationError as error:
        raise AwsError(f"{what}: {error}", aws_code="ParamValidation") from error
    except (boto.BotoCoreError, OSError) as error:
        raise UnreachableError(f"{what}: AWS cannot be reached: {error}") from error


def no_region() -> HostError:
    return HostError("no AWS region is named", hint="builder.region in the template, AWS_REGION, or `aws configure`")


def _refused(error: Exception, what: str) -> BakeError:
    response = getattr(error, "response", {})
    action = str(getattr(error, "operation_name", ""))
    code = str(response.get("Error", {}).get("Code", ""))
    said = str(response.get("Error", {}).get("Message", "")) or code
    if code in WHO:
        return UnreachableError(
            f"{what}: AWS does not accept the credentials: {said} ({code})", hint="aws sts get-caller-identity; aws sso login"
        )
    if code in FORBIDDEN:
        return HostError(f"{what}: not allowed to {action}: {said}", hint="docs/aws.md has the IAM policy that bake needs")
    return AwsError(f"{what}: {said} ({code} of {action})", aws_code=code, action=action)

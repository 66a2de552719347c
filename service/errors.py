"""Errors as RFC 9457 problem documents: one shape for every answer that is not a success."""

from collections.abc import Mapping, Sequence
from http import HTTPStatus
from typing import Final, Literal

from pydantic import BaseModel, ConfigDict, Field

MEDIA_TYPE: Final = "application/problem+json"
Location = Literal["query", "path", "header", "cookie", "body"]


class FieldError(BaseModel):
    """One wrong input."""

    model_config = ConfigDict(frozen=True)

    location: Location = Field(description="Where the input stood.", examples=["query"])
    field: str = Field(description="Its name.", examples=["limit"])
    code: str = Field(description="Stable name of what is wrong.", examples=["less_than_equal"])
    message: str = Field(description="What is wrong and what would be right.")


class Problem(BaseModel):
    """A problem document (RFC 9457)."""

    model_config = ConfigDict(frozen=True)

    type: str = Field(
        description="Identifies the kind of problem.", examples=["urn:subtext:problem:missing_scope"]
    )
    title: str = Field(description="The HTTP status in words.", examples=["Forbidden"])
    status: int = Field(description="The HTTP status.", ge=400, le=599, examples=[403])
    detail: str = Field(description="What happened here and what to do about it.")
    code: str = Field(description="Stable name of the problem, for programs.", examples=["missing_scope"])
    errors: list[FieldError] = Field(
        default_factory=list, description="Every wrong input, if inputs were wrong."
    )


class ProblemError(Exception):
    """Raised anywhere in a request; becomes a problem document."""

    def __init__(
        self,
        status: HTTPStatus,
        code: str,
        detail: str,
        *,
        errors: Sequence[FieldError] = (),
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(detail)
        self.problem = problem(status, code, detail, errors=errors)
        self.headers = dict(headers or {})


def problem(status: HTTPStatus, code: str, detail: str, *, errors: Sequence[FieldError] = ()) -> Problem:
    """Return the document for one problem."""
    return Problem(
        type=f"urn:subtext:problem:{code}",
        title=status.phrase,
        status=status.value,
        detail=detail,
        code=code,
        errors=list(errors),
    )


def invalid_input(errors: Sequence[FieldError]) -> ProblemError:
    """Return the 422 for wrong inputs; its detail names the first."""
    first = errors[0]
    detail = f"{first.location} parameter {first.field}: {first.message}"
    return ProblemError(HTTPStatus.UNPROCESSABLE_ENTITY, "invalid_input", detail, errors=errors)

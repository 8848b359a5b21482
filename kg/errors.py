"""Errors a user can act on: what is wrong, where, and what to do."""

from __future__ import annotations

from dataclasses import dataclass


class StrataError(Exception):
    """Base of all errors whose message is meant for the user."""


class ParseError(StrataError):
    """A file is not well-formed RDF. Carries the file and, where known, the line."""

    def __init__(self, file: str, line: int | None, reason: str) -> None:
        self.file = file
        self.line = line
        at = f"{file}:{line}" if line is not None else file
        super().__init__(f"{at}: {reason}. Correct the syntax there and build again.")


class BuildError(StrataError):
    """A build stopped; the served snapshot is as it was."""


class QueryError(StrataError):
    """A query is not acceptable or not well-formed."""


class QueryTimeout(StrataError):
    """A query ran longer than it may and was stopped."""


class NotAcceptable(StrataError):
    """The result of a query cannot be written in any format the caller takes."""


class Busy(StrataError):
    """Too much is asked at once; ``retry_after`` says in how many seconds to come again."""

    def __init__(self, message: str, *, retry_after: int = 2, own_fault: bool = False) -> None:
        self.retry_after = retry_after
        self.own_fault = own_fault
        super().__init__(message)


class SettingsError(StrataError):
    """A setting has a value that cannot be used."""


class NoSnapshot(StrataError):
    """There is nothing to serve yet."""


class StoreUnavailable(StrataError):
    """The SPARQL endpoint that holds the graph does not answer."""


@dataclass(eq=False)
class BadParameter(StrataError):
    """A parameter name or value that a named query does not take."""

    parameter: str
    reason: str
    valid: tuple[str, ...] = ()

    def __str__(self) -> str:
        hint = f" Valid: {', '.join(self.valid)}." if self.valid else ""
        return f"{self.parameter}: {self.reason}.{hint}"


class BadParameters(StrataError):
    """Everything that is wrong with the parameters of one call, at once."""

    def __init__(self, errors: tuple[BadParameter, ...]) -> None:
        self.errors = errors
        super().__init__("\n".join(str(e) for e in errors))

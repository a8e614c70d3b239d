"""User errors: invalid options, missing or damaged files.

A message says what was expected, what was found, where, and what to do. Every class is also a
builtin exception, so that `except FileNotFoundError` works. Commands print the message without a
traceback and exit with status 2.
"""


class TendrilError(Exception):
    """An error caused by a configuration, a path or a file. Internal errors are assertions."""


class ConfigError(TendrilError, ValueError):
    """An option has an invalid value."""


class MissingPackageError(TendrilError, ImportError):
    """A package is needed that only an extra of Tendril brings, and it is not installed."""


class DeviceError(TendrilError, RuntimeError):
    """The requested device does not exist on this machine."""


class InputsNotFoundError(TendrilError, FileNotFoundError):
    """There are no inputs at the given place."""


class UnreadableInputError(TendrilError, ValueError):
    """One input cannot be read; its rows become invalid (`valid` is false)."""


class UnreadableInputsError(TendrilError, ValueError):
    """None of the inputs can be read."""


class SubjectError(TendrilError, ValueError):
    """The given subject is not a usable network."""


class UnknownSiteError(TendrilError, ValueError):
    """The subject has no site of that name."""


class WeightsNotFoundError(TendrilError, FileNotFoundError):
    """The weights file does not exist or cannot be downloaded."""


class WeightsError(TendrilError, ValueError):
    """The weights file is damaged or does not fit the network."""


class OverflowingRowsError(TendrilError, OverflowError):
    """Activations are not finite or do not fit into the dtype of the store."""


class StoreNotFoundError(TendrilError, FileNotFoundError):
    """There is no such store."""


class StoreIncompleteError(TendrilError, RuntimeError):
    """The harvest of this store has not finished."""


class StoreUnreachableError(TendrilError, ConnectionError):
    """The server that holds a store does not answer or denies access."""


class StoreVersionError(TendrilError, ValueError):
    """The store has another version of the format."""


class StoreDamagedError(TendrilError, OSError):
    """A file of the store is missing, short or altered."""


class StoreLockedError(TendrilError, BlockingIOError):
    """Another process is writing this store or run."""


class StoreFullError(TendrilError, OSError):
    """The disk is full."""


class RunNotFoundError(TendrilError, FileNotFoundError):
    """There is no run of that name."""


class ReportNotFoundError(TendrilError, FileNotFoundError):
    """There is no report of that name."""


class RunDamagedError(TendrilError, ValueError):
    """A file of the run is missing or altered."""


class MissingEntryError(RunDamagedError, KeyError):
    """A JSON file of the run lacks an entry."""

    __str__ = Exception.__str__  # KeyError would quote the sentence


class ReportDamagedError(TendrilError, ValueError):
    """A file of the report is missing or altered."""


class HubError(TendrilError, ConnectionError):
    """The Hugging Face hub does not answer, lacks what is asked for, or denies access."""


class ExchangeError(TendrilError, ValueError):
    """The files at an address are not those of a run or store that was pushed."""


class EndpointError(TendrilError, ConnectionError):
    """The endpoint of a language model refuses the request or does not exist."""

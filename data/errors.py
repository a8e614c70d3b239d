"""The user's mistakes, each one sentence: what was expected, what was got, where, what to do.

Every class is also the builtin that a caller would expect, so `except FileNotFoundError`
works without knowing of Tendril. Commands turn them into exit status 2 without a traceback.
"""


class TendrilError(Exception):
    """What a configuration, a path or a file can cause. Our own faults are `assert`s."""


class ConfigError(TendrilError, ValueError):
    """A field of a configuration has a value that cannot be used."""


class DeviceError(TendrilError, RuntimeError):
    """The device asked for is not on this machine."""


class InputsNotFoundError(TendrilError, FileNotFoundError):
    """There are no inputs where they were said to be."""


class UnreadableInputError(TendrilError, ValueError):
    """One input cannot be read; its rows become `valid = false`."""


class UnreadableInputsError(TendrilError, ValueError):
    """Not one of the inputs can be read."""


class SubjectError(TendrilError, ValueError):
    """What was given as a subject is none."""


class UnknownSiteError(TendrilError, ValueError):
    """The subject has no site of that name."""


class WeightsNotFoundError(TendrilError, FileNotFoundError):
    """The file of weights is not there, or cannot be fetched."""


class WeightsError(TendrilError, ValueError):
    """The file of weights is damaged, or does not fit the network."""


class OverflowingRowsError(TendrilError, OverflowError):
    """Activations do not fit the dtype of the store."""


class StoreNotFoundError(TendrilError, FileNotFoundError):
    """There is no store at that path."""


class StoreIncompleteError(TendrilError, RuntimeError):
    """The harvest of this store has not ended."""


class StoreUnreachableError(TendrilError, ConnectionError):
    """The server that a store lies on does not answer, or does not let us in."""


class StoreVersionError(TendrilError, ValueError):
    """The store was written in another version of the format."""


class StoreDamagedError(TendrilError, OSError):
    """A file of the store is missing, cut short or altered."""


class StoreLockedError(TendrilError, BlockingIOError):
    """Another harvest is writing this store."""


class StoreFullError(TendrilError, OSError):
    """There is no room left on the disk."""


class RunNotFoundError(TendrilError, FileNotFoundError):
    """There is no run of that name."""


class ReportNotFoundError(TendrilError, FileNotFoundError):
    """There is no report of that name."""


class RunDamagedError(TendrilError, ValueError):
    """A file of the run is missing or altered."""


class EndpointError(TendrilError, ConnectionError):
    """The endpoint of a language model refuses, or is not there."""

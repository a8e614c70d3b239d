"""User errors: invalid options, missing or damaged files.

A message says what was expected, what was found, where, and what to do. Every class is also a
builtin exception, so that `except FileNotFoundError` works. Commands print the message without a
traceback and exit with status 2.
"""

import errno


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


CAUSES = {
    errno.ENOSPC: ("the disk is full", "Make room"),
    errno.EDQUOT: ("the disk quota is used up", "Make room"),
    errno.EFBIG: ("the file would exceed the size limit", "Raise the limit (`ulimit -f`)"),
    errno.EROFS: ("the file system is read-only", "Choose another --home"),
    errno.EACCES: ("permission is denied", "Change the permissions, or choose another path"),
    errno.EPERM: ("the operation is not permitted", "Choose another path"),
    errno.ENAMETOOLONG: ("the name is too long", "Choose a shorter --name or --home"),
    errno.ENOTDIR: ("a part of the path is a file, not a folder", "Check the path"),
    errno.ELOOP: ("the path has too many links", "Check the path"),
    errno.EMFILE: ("too many files are open", "Raise the limit (`ulimit -n`)"),
    errno.ENFILE: ("too many files are open on this machine", "Close some"),
    errno.ENOMEM: ("there is not enough memory", "Free some, or lower --batch-size"),
    errno.EIO: ("the disk reports an error", "Check the disk"),
    errno.ENOENT: ("a file or folder is missing, or was removed meanwhile", "Check the path"),
    errno.EISDIR: ("a folder lies where a file must be", "Move it away"),
    errno.EEXIST: ("a file lies where a folder must be", "Move it away"),
    errno.ENOTEMPTY: ("a folder is not empty, or is being filled by another process", "Wait"),
    errno.EXDEV: ("two folders lie on different disks", "Choose another --home"),
    errno.EBUSY: ("a file is in use", "Wait"),
    errno.EAGAIN: ("a file is locked, or there are too many processes", "Wait"),
    errno.ENOLCK: ("the file system has no locks", "Choose another --home"),
    errno.ENOTSUP: ("the file system cannot do this", "Choose another --home"),
    errno.ESTALE: ("the network file system has lost a file", "Mount it again"),
    errno.ETIMEDOUT: ("the disk or server does not answer", "Check it"),
    errno.ENODEV: ("the device is gone", "Check the path"),
    errno.ENXIO: ("the device is gone", "Check the path"),
    errno.ENOTCONN: ("the network file system is not connected", "Mount it again"),
}
"""Errors of the operating system that are nobody's bug: the cause, and what to do."""

OUT_OF_MEMORY = (
    *("can't allocate memory", "not enough memory", "out of memory", "Cannot allocate memory"),
    *("failed to map segment", "std::bad_alloc", "can't start new thread"),
)


def is_out_of_memory(error: BaseException) -> bool:
    """True if an error means that there is not enough memory."""
    return isinstance(error, MemoryError) or any(text in str(error) for text in OUT_OF_MEMORY)

"""Every error that Pellucid raises on purpose.

    PellucidError
    ├── SettingsError           a setting is unknown, missing or wrong: says which and what to write
    ├── RetryableError          trying again later can help
    │   ├── OutOfSpaceError     the disk is full or below the free-space watermark
    │   ├── StoreError          the S3-compatible store is away, busy or refuses us
    │   └── DestinationError    a PACS is down, busy or refused for now
    ├── DamagedFileError        a file that was kept is gone or altered: tried as often as a job may be, then set aside
    └── PermanentError          trying again cannot help; the instance stays, the job says why
        ├── InvalidInstanceError    what arrived is no DICOM instance that we can store
        ├── ObjectRefusedError      an output cannot hold this result: the other objects are sent
        ├── NotEligibleError        a pipeline does not read this kind of image: a result, not a fault
        │   └── UndecodableError    its pixels cannot be decoded
        ├── ModelError              a model package is incomplete, altered or does not fit
        │   └── UnsupportedMethodError  an explainer needs what this model does not have, gradients for example
        └── PipelineError           a pipeline names what does not exist

Whether an error is worth another try is decided here, where it is born, and nowhere else.
"""


class PellucidError(Exception):
    """The base of all errors here."""


class SettingsError(PellucidError):
    """A setting is unknown, missing or wrong."""


class RetryableError(PellucidError):
    """Trying again later can help."""


class OutOfSpaceError(RetryableError):
    """The disk is full or below the free-space watermark."""


class StoreError(RetryableError):
    """The S3-compatible store is away, busy or refuses us; the message says what to do."""


class DestinationError(RetryableError):
    """A destination is down, busy or refused for now."""


class DamagedFileError(PellucidError):
    """A file that was kept is gone or altered. A shared volume may show it a moment later, so it is tried again."""


class PermanentError(PellucidError):
    """Trying again cannot help."""


class InvalidInstanceError(PermanentError):
    """What arrived is no DICOM instance that can be stored."""


class ObjectRefusedError(PermanentError):
    """An output cannot hold this result; the job delivers its other objects and says why this one is missing."""


class NotEligibleError(PermanentError):
    """The pipeline does not read this kind of image."""


class UndecodableError(NotEligibleError):
    """The pixels cannot be decoded."""


class ModelError(PermanentError):
    """A model package is incomplete, altered or does not fit its graph."""


class UnsupportedMethodError(ModelError):
    """An explainer needs something that this model does not have."""


class PipelineError(PermanentError):
    """A pipeline names something that does not exist."""

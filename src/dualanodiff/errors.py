"""Everything dualanodiff raises on purpose.

    DualAnoDiffError
    |-- DataError          a folder, a list of shots or a lineage is not what it must be
    |   `-- PictureError   one file cannot be used as a picture or a mask
    |-- SettingsError      an unknown setting, or a value it cannot have
    |-- ModelError         a base, an adapter or an official checkpoint does not fit
    |-- RunError           a run or set folder cannot be used, continued or overwritten
    `-- TrainingStopped    training met NaN, no memory or a full disk; the last good state is kept

The command line prints the text of any of them as one line and exits with 1. A text names the place,
what is there, what must be there, and the way out.
"""


class DualAnoDiffError(Exception):
    """The user's input or machine does not allow the work; the text says what to do."""


class DataError(DualAnoDiffError):
    """A data folder, a list of shots or a lineage is not what it must be."""


class PictureError(DataError):
    """One file cannot be used as a picture or a mask."""


class SettingsError(DualAnoDiffError):
    """A setting is unknown or has a value it cannot have."""


class ModelError(DualAnoDiffError):
    """A base, an adapter or an official checkpoint does not fit."""


class RunError(DualAnoDiffError):
    """A run or set folder cannot be used, continued or overwritten."""


class TrainingStopped(DualAnoDiffError):
    """Training cannot go on; the last good state is kept."""

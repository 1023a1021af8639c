"""Every deliberate error of the station.

StationError                                                       exit 1
├── ConfigError      wrong before anything moved: recipe, cell,    exit 2
│                    arguments
├── DeviceError      the hardware said no; carries .device         exit 3
│   ├── DeviceNotFound    nothing answers at that address or serial
│   ├── DeviceTimeout     an answer came too late or not at all
│   │   └── SheetAwaited      no sheet came, or none was taken away
│   ├── SheetGone         it was taken away while it was worked on
│   ├── DeviceLost        it was there, and answers again only once opened anew
│   ├── IncompleteFrame   a damaged picture, or one nobody asked for
│   ├── UnfitPicture      whole, but black, overexposed, out of focus or the
│   │                     one before once more
│   ├── MoveRefused       MotionGuard did not let a move begin
│   └── RobotStopped      a safety stop or a person stopped the arm;
│                         only a person clears it
├── ModelError       weights and card disagree, or an input misfits exit 4
├── DatasetError     the tree breaks its own rules                  exit 5
└── CommandRefused   the station's state or owner does not allow it exit 6
    └── ProductionLocked  known sheets were not judged, or wrongly

Aborted is no StationError: like KeyboardInterrupt it ends what is under way at once.

`cli` alone catches `StationError`: one line, no traceback. Anything else is a bug and shows one.
"""

INTERRUPTED = 130  # exit code after Ctrl-C: 128 + SIGINT
LONGEST_MESSAGE = 1000


def one_line(text: str) -> str:
    """Make one line for a person, whatever a file's content or name brought into it."""
    shown = "".join(
        character if character.isprintable() else character.encode("unicode_escape").decode()
        for character in text
    )
    return shown if len(shown) <= LONGEST_MESSAGE else f"{shown[:LONGEST_MESSAGE]} ..."


class StationError(Exception):
    """Base of every error a user can act on."""

    exit_code = 1

    def __str__(self) -> str:
        return one_line(super().__str__())


class ConfigError(StationError):
    """Something was wrong before anything moved."""

    exit_code = 2


class DeviceError(StationError):
    """The hardware said no.

    `device` names it as a person would look for it, `advice` is the next human action.
    """

    exit_code = 3

    def __init__(self, device: str, problem: str, advice: str = "") -> None:
        super().__init__(device, problem, advice)
        self.device = device
        self.problem = problem
        self.advice = advice

    def __str__(self) -> str:
        advice = f"; {self.advice}" if self.advice else ""
        return one_line(f"{self.device}: {self.problem}{advice}")


class DeviceNotFound(DeviceError):
    """Nothing answers at that address or serial number."""


class DeviceTimeout(DeviceError):
    """An answer came too late or not at all."""


class SheetAwaited(DeviceTimeout):
    """No sheet came in time, or the last one was not taken away: nothing is wrong in here.

    `present` says what was waited for.
    """

    def __init__(self, device: str, problem: str, advice: str, *, present: bool) -> None:
        super().__init__(device, problem, advice)
        self.present = present


class SheetGone(DeviceError):
    """The sheet was taken away while it was worked on; what lies there now is another one."""


class DeviceLost(DeviceError):
    """A device that was there went away; trying again is no use before it is opened anew."""


class IncompleteFrame(DeviceError):
    """The camera delivered a damaged picture, or one that nobody asked for."""


class UnfitPicture(DeviceError):
    """The camera delivered a whole picture that shows nothing fit to be judged."""


class MoveRefused(DeviceError):
    """MotionGuard did not let a move begin; the arm has not moved."""


class RobotStopped(DeviceError):
    """A safety stop or a person stopped the arm; only a person clears it."""


class ModelError(StationError):
    """Weights and card disagree, or an input does not fit the model."""

    exit_code = 4


class DatasetError(StationError):
    """The dataset tree breaks its own rules."""

    exit_code = 5


class CommandRefused(StationError):
    """The state of the station, or who has control of it, does not allow a command."""

    exit_code = 6


class ProductionLocked(CommandRefused):
    """The reference sheets were judged wrongly, not at all, or too long ago."""


class Aborted(BaseException):
    """Somebody aborted: whatever is under way ends now, and the sheet in it has no verdict."""

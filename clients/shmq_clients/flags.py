"""Flags as callers say them: True or False, and nothing that Python takes for one of them (it takes "no" for true)."""

from shmq.errors import InvalidArgument


def check_flags(**flags: object) -> None:
    """Raise InvalidArgument for the first that is neither True nor False."""
    for name, value in flags.items():
        if value is not True and value is not False:
            raise InvalidArgument(argument=name, value=value, allowed="True or False")

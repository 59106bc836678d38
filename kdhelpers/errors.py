"""The one exception that is the user's to mend."""


class UserError(ValueError):
    """Something in the input, the options or the machine is wrong, and the reader can put it right.

    The message is one sentence: what is wrong, where, and what to do. The command line prints it without a
    traceback and ends with exit code 2.
    """


def refuse(problems: list[str]) -> None:
    """Raise UserError with all of the problems in one sentence, where there are any."""
    if problems:
        raise UserError("; also: ".join(problems))

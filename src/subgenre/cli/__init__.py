"""The command line: arguments in, one call of `Model` or of a command, an exit code out.

`learn`, `judge` and `use` hold the commands, `options` what they share, `console` the terminal.
"""

from subgenre.cli.main import main, run

__all__ = ["main", "run"]

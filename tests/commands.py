"""The command line in tests: run it, and read what it says of bad input."""

from click.testing import CliRunner, Result

from tokendyn.cli import main


def run(*arguments: object) -> Result:
    return CliRunner().invoke(main, [str(argument) for argument in arguments])


def refused(*arguments: object) -> str:
    """What is said, on stderr alone, of input that ends with exit code 2."""
    result = run(*arguments)
    assert (result.exit_code, result.stdout) == (2, "")
    assert isinstance(result.exception, SystemExit)
    assert result.stderr.startswith("tokendyn: ")
    assert "Fix: " in result.stderr
    assert "Traceback" not in result.stderr
    return result.stderr

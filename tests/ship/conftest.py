"""What tests of exports share: the arguments that make a pruning run quick."""

from tests.cli.conftest import asked as asked

"""The floating-point side of every statement, one file per family as in `theory`."""

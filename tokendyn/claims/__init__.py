"""Claims about token dynamics, stated by a user: read, searched for counterexamples, replayed.

docs/claims.md is the how-to page.
"""

from tokendyn.claims.claim import Claim, read_claim

__all__ = ["Claim", "read_claim"]

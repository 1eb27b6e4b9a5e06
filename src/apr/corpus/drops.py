"""The former name of the account of what was left out."""

from apr.corpus.account import Account as Drops

__all__ = ["Drops"]

"""Which version of notata this is."""

__version__ = "0.4.0"

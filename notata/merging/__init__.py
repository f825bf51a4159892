"""Many pieces into one: what all ranks of a run wrote, as one process would have written it.

A merge is planned, then joined under temporary names, then committed. Nothing is put in place
unless everything could be joined, and the ranks' own files are left alone.
"""

from notata.merging.commit import Report, Row, merge

__all__ = ["Report", "Row", "merge"]

"""Many pieces into one: what all ranks of a run wrote, as one process would have written it.

A merge is planned, then joined under temporary names, then committed. Nothing is put in place
unless everything could be joined, and the ranks' own files are left alone, unless they are to be
pruned.
"""

from notata.merging.plan import Plan, make_plan, ways_out
from notata.merging.runs import Report, Row, merge, rows_of
from notata.merging.verify import Verdict, verify

__all__ = [
    "Plan",
    "Report",
    "Row",
    "Verdict",
    "make_plan",
    "merge",
    "rows_of",
    "verify",
    "ways_out",
]

"""Outcomes of two tiers as a report: every figure as plain data, and one page that works offline.

``report`` computes it, ``to_json`` and ``to_html`` show it.
"""

from corea.evaluate.report.assemble import report
from corea.evaluate.report.figures import Report, to_json
from corea.evaluate.report.page import to_html

__all__ = ["Report", "report", "to_html", "to_json"]

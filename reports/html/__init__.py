"""The report as one HTML file: no scripts, nothing loaded from anywhere."""

from memory_harness.reports.html.page import BEGINS, html_text, page_text

__all__ = ["BEGINS", "html_text", "page_text"]

"""The report as one HTML file: no scripts, nothing loaded from anywhere."""

from memory_harness.reports.html.page import html_text, page_text

__all__ = ["html_text", "page_text"]

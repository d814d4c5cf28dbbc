"""Figures and pages: the analysis of a data set (eda), plots, sections of a report, and the HTML report itself.

Input: run folders, and clips with their labels. Output: matplotlib figures and HTML files. The package may import every
other package of `tagging`. Only the scripts and tools import it.
"""

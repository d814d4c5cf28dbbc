"""Pictures and pages for people: a look at a data set (eda), plots, and the html report of a run or a data set.

May import every package before it; only scripts and tools import it. Run folders and tables come in; matplotlib figures
and html pages go out.
"""

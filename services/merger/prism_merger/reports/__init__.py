"""Summary, analytics and report of a finished run, written by a process of their own.

`python -m prism_merger.reports FACTS.json` reads what the merger says of a run (`facts`), counts the rows
with pandas, a few MiB at a time (`blocks`, `tally`), and writes what people get: `summary` (Markdown),
`analytics` (CSV) and `page` (HTML with plots). What it finds is plain data (`findings`), so that the three
agree. The merger itself imports `facts` alone: pandas' memory goes with the process.
"""

"""The frame of every report: one file, no request to anywhere, light or dark as the reader's system is."""

MARK = "<!-- a report of nnopt -->"

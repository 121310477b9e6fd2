"""`page`: a record as HTML."""
from nnopt_cli.report.html_page import MARK


def page(record):
    return "<!doctype html>" + MARK

"""What only a report shows: taken after the work, in bounded memory."""

from __future__ import annotations


def with_details(record, before, after):
    return record

"""Times as in the logs, to be sorted and compared by eye; UTC like all of them."""

DATETIME_FORMAT = "Y-m-d H:i:s"
DATE_FORMAT = "Y-m-d"

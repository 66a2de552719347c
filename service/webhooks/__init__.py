"""Telling others of incidents: signed, at least once, and never more than ids, names and figures."""

"""Row patterns (MATCH_RECOGNIZE): rows in order of time are matched against a regular expression of conditions."""

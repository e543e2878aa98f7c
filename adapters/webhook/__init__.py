"""Dispatch by signed webhook, for those who control their own devices."""

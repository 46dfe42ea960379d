"""Alerts: a problem is reported once to the addresses of the rules that match, and once more when it is over.

an event -> subscriber -> ledger: one open row for (kind, subject), and a notice in the outbox for each rule
the leading dispatcher's sender thread -> watch: what is still so, what is over -> ledger
                                       -> outbox: notices that are due -> channels: webhooks, apprise
"""

"""Alerts: what has gone wrong, told once to those who want to know, and told again when it is over.

an event -> subscriber -> ledger: one open row for (kind, subject), and a notice in the outbox for each rule
the leading dispatcher's sender thread -> watch: what is still so, what is over -> ledger
                                       -> outbox: notices that are due -> channels: webhooks, apprise
"""

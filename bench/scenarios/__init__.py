"""Scenarios at the size that users have: each is one command that prints a report and draws a chart for the docs.

python -m bench.scenarios.batch      42,888 real documents through four accounts, with processes killed meanwhile
python -m bench.scenarios.bots       50 bots, 100 users, ten minutes
python -m bench.scenarios.outage     a provider that fails for 30 seconds
python -m bench.scenarios.callers    1,000 concurrent callers of REST checks
"""

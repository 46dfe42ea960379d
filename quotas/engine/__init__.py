"""The decisions: limits, accounts and slots, in Lua on Redis under one clock. Knows no Django."""

"""The admin site is in English."""

"""A simulation of the dispatcher over value objects: no SQL, no Redis, no clock. Times are Unix seconds."""

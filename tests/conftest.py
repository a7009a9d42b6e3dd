from hypothesis import settings

# The same examples on every run and machine, and no stopwatch: a test fails because of what it shows, or not at all.
settings.register_profile("telegrad", derandomize=True, deadline=None, max_examples=60, database=None)
settings.load_profile("telegrad")

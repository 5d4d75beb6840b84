"""What holds for every test."""

from hypothesis import settings

# A machine that is busy is no reason to fail: nothing here is timed.
settings.register_profile("prism", deadline=None)
settings.load_profile("prism")

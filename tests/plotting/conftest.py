import matplotlib as mpl
import pytest


@pytest.fixture(autouse=True)
def _untouched_settings():
    with mpl.rc_context():
        yield

import pytest

pytest.register_assert_rewrite(
    f"{__name__}.contract", f"{__name__}.known_bugs", f"{__name__}.over_http", f"{__name__}.scripted"
)

"""Passwords inside parameters: names in every record, the password only on the wire."""

from __future__ import annotations

import pytest

from fuhe.acquisition.requests import settings_of
from fuhe.acquisition.setting_secrets import expanded, named, names_in, resolved
from fuhe.protocols.common.errors import UsageError

BOOK = {"meter-7": "00004a5b6c7d", "odd": "a,b"}


def password_of(name: str) -> str:
    """As the secrets file does it."""
    if name not in BOOK:
        raise UsageError(f"secret {name} is not in the secrets file")
    return BOOK[name]


def name_of(password: str) -> str | None:
    """The other way."""
    return next((n for n, p in BOOK.items() if p == password), None)


def test_a_name_becomes_its_password_and_comes_back_however_deep() -> None:
    text = "T01,F10,1,secret:meter-7\nT01,F10,2,secret:meter-7\n"
    assert names_in(text) == ["meter-7"] and expanded(text, password_of).count("00004a5b6c7d") == 2
    data = {"n": 1, "devices": [{"password_hex": "00004a5b6c7d", "pn": 1}, {"password_hex": "000000000000", "pn": 2}]}
    kept = named(data, name_of)
    assert kept["devices"][0]["password_hex"] == "secret:meter-7" and kept["devices"][1]["password_hex"] == "0" * 12
    assert resolved(kept, password_of) == data


def test_only_fields_of_passwords_are_looked_up() -> None:
    values = {"apn": "secret:meter-7", "password": "secret:meter-7", "password_len": 12}
    assert resolved(values, password_of) == {"apn": "secret:meter-7", "password": "00004a5b6c7d", "password_len": 12}


def test_what_cannot_be_named_or_found_is_refused_without_being_shown() -> None:
    with pytest.raises(UsageError, match="secrets file") as error:
        named({"password": "hidden9"}, name_of)
    assert "hidden9" not in str(error.value)
    with pytest.raises(UsageError, match="nobody"):
        resolved({"password": "secret:nobody"}, password_of)
    with pytest.raises(UsageError, match="letters") as error:
        expanded("secret:odd", password_of)
    assert "a,b" not in str(error.value)


@pytest.mark.parametrize(
    "params",
    [{}, {"settings": []}, {"settings": "F25"}, {"settings": [{"item": "F25"}]}, {"settings": [1]},
     {"settings": [{"item": "", "pn": 0, "values": {}}]}, {"settings": [{"item": "F1", "pn": "1", "values": {}}]}],
)  # fmt: skip
def test_a_request_for_parameters_is_checked(params: dict[str, object]) -> None:
    with pytest.raises(UsageError):
        settings_of(params)
    (good,) = settings_of({"settings": [{"item": "F25", "pn": 1, "values": {"pt_ratio": 1}}]})
    assert (good.item, good.pn, good.values) == ("F25", 1, {"pt_ratio": 1})

import pytest

from gravswell.errors import InvalidInputError
from gravswell.quiver.layout import check_key, check_name, check_version, is_readable_name, parse_version


@pytest.mark.parametrize("name", ["my-model", "a", "resnet50_v1.5", "1", "_x", "x" * 200])
def test_names_that_are_fine(name: str) -> None:
    assert check_name(name) == name


@pytest.mark.parametrize(
    ("name", "fact"),
    [
        ("", "empty"),
        ("..", "dot"),
        (".hidden", "dot"),
        ("../evil", "path"),
        ("a/b", "path"),
        ("/abs", "path"),
        ("a\\b", "path"),
        ("a\0b", r"\\x00"),
        ("a b", "' '"),
        ("-rf", "'-'"),
        ("modèle", "è"),
        ("a\n", r"\\n"),
        ("x" * 201, "201"),
    ],
)
def test_names_that_are_not(name: str, fact: str) -> None:
    with pytest.raises(InvalidInputError, match=fact):
        check_name(name)


@pytest.mark.parametrize(("name", "number"), [("1", 1), ("12", 12), ("999999999999999999", 999999999999999999)])
def test_version_folders(name: str, number: int) -> None:
    assert parse_version(name) == number


@pytest.mark.parametrize(
    "name", ["0", "-1", "01", "+1", "1.0", "2.tmp", " 1", "1 ", "1_0", "\u0661", "abc", "", "9" * 19]
)
def test_folders_that_are_no_version(name: str) -> None:
    assert parse_version(name) is None


@pytest.mark.parametrize("number", [0, -3, "abc", 1.5, True, None])
def test_numbers_that_are_no_version(number: object) -> None:
    with pytest.raises(InvalidInputError, match="from 1 on"):
        check_version(number)  # type: ignore[arg-type]


def test_others_names_are_readable_unless_they_lead_out() -> None:
    assert is_readable_name("a b")
    assert not any(map(is_readable_name, ("", ".git", "a/b", "a\0")))


def test_keys() -> None:
    assert check_key("m/1/.manifest.json") == "m/1/.manifest.json"
    for key in ("/m", "m/", "m//1", "m/../n", ""):
        with pytest.raises(InvalidInputError):
            check_key(key)


def test_names_of_versions_under_proof_and_of_members_are_reserved() -> None:
    with pytest.raises(InvalidInputError, match=r"gravswell-proof-.*under proof"):
        check_name("gravswell-proof-abc")
    with pytest.raises(InvalidInputError, match=r"gravswell-member-.*members of pipelines"):
        check_name("gravswell-member-abc")
    assert check_name("gravswell-proof") == "gravswell-proof"

"""Models and devices in, groups out: the rows of the reference system, and what holds of every arrangement."""

import pytest

from gravswell.errors import InvalidInputError, NotFoundError
from gravswell.placement import Group, Held, Wish, arrange, place


def at(layout):
    return {name: [str(group) for group in groups] for name, groups in layout.placed.items()}


def test_models_take_devices_in_a_row_one_after_the_other():
    layout = place({"A": 2, "B": 4, "C": 3, "D": 4}, 16)
    assert at(layout) == {"A": ["0-1"], "B": ["2-5"], "C": ["6-8"], "D": ["9-12"]}
    assert layout.table == "0-1 A; 2-5 B; 6-8 C; 9-12 D; 13-15 free"
    assert layout.gpus("C") == (6, 7, 8)


def test_a_second_process_takes_the_first_free_ones():
    first = place({"first": 2}, 4)
    second = place({"second": 2}, 4, held=first.held)
    assert at(second) == {"second": ["2-3"]}
    assert second.table == "0-1 first; 2-3 second"


def test_beyond_the_capacity_the_error_says_who_holds_what():
    with pytest.raises(InvalidInputError) as refused:
        place({"second": 2}, 4, held=["first=0-2"])
    assert str(refused.value).startswith(
        "second asks for 2 devices in a row, and 1 of 4 are free. Who holds what: 0-2 first; 3 free. "
    )


def test_models_that_share_wrap_to_the_first_group():
    layout = place(["A=2,shared", "B=2,shared", "C=2,shared", "D=2,shared", "E=2,shared"], 4)
    assert at(layout) == {"A": ["0-1"], "B": ["2-3"], "C": ["0-1"], "D": ["2-3"], "E": ["0-1"]}
    assert layout.table == "0-1 A, C and E; 2-3 B and D"


def test_a_start_puts_several_into_one_group():
    layout = place(["A=2", "B=4@2,shared", "C=4@2,shared", "D=4@2,shared"], 6)
    assert layout.table == "0-1 A; 2-5 B, C and D"


def test_a_single_device_model_is_copied_onto_four_unless_told_otherwise():
    assert place(["A"], 4) == place(["A=4x1"], 4)
    assert at(place(["A=4x1"], 6)) == {"A": ["0", "1", "2", "3"]}
    assert at(place(["A=2x1@3"], 6)) == {"A": ["3", "4"]}
    # Copies need not stand in a row; where they do not, they take what is free.
    assert at(place(["A=3x1"], 5, held=["x=1"])) == {"A": ["0", "2", "3"]}


def test_a_model_of_several_devices_is_not_copied_so():
    with pytest.raises(InvalidInputError, match=r"A: 4x2 copies a model of 2 devices.*name it 4 times, each with 2"):
        place(["A=4x2"], 16)


def test_two_groups_of_two_for_one_model_or_for_two():
    assert at(place(["A=2", "A=2"], 4)) == {"A": ["0-1", "2-3"]}
    assert place(["A=2", "A=2"], 4).gpus("A") == (0, 1, 2, 3)
    assert at(place(["A=2", "B=2"], 4)) == {"A": ["0-1"], "B": ["2-3"]}


@pytest.mark.parametrize(
    ("wishes", "devices", "held", "says"),
    [
        (["A=2@3"], 4, [], "A asks for devices 3-4, and there are 4 from 0 on"),
        (["A=2", "B=2@1"], 4, [], "B asks for devices 1-2, of which A holds some"),
        (["A=1", "B=1", "C=4@0"], 4, [], "C asks for devices 0-3, of which A and B hold some"),
        (["A=2@0,shared"], 4, ["x=0"], "A asks for devices 0-1, of which x holds some"),
        (["A=2@0"], 4, ["x=0,shared"], "A asks for devices 0-1, of which x holds some"),
        (["A=2"], 4, ["x=1", "y=3"], "A asks for 2 devices in a row, and 2 of 4 are free"),
        (["A=4x1"], 4, ["x=1"], "A asks 4 times for 1 device, and 3 of 4 are free"),
        (["A=3,shared"], 4, ["x=1", "y=3,shared"], "A asks for 3 devices in a row, and 3 of 4 are left"),
        (["A=1"], 0, [], "A asks for 1 device, and 0 of 0 are free. Who holds what: there is no device"),
        # A model's own copies are never on one device, also where it shares.
        (["A=2,shared", "A=2,shared"], 3, [], "A asks for 2 devices in a row, and 1 of 3 are left"),
    ],
)
def test_what_finds_no_room_says_what_it_asked_for_and_who_is_there(wishes, devices, held, says):
    with pytest.raises(InvalidInputError) as refused:
        place(wishes, devices, held=held)
    assert says in str(refused.value)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "=2",
        "A=",
        "A=two",
        "A=2x",
        "A=-1",
        "A=0",
        "A=0x1",
        "A=1@",
        "A=1@x",
        "A=1,mine",
        "A=1,shared@2",
        "A=1234567890",
    ],
)
def test_what_is_no_wish_is_refused(text):
    with pytest.raises(InvalidInputError):
        place([text], 4)


@pytest.mark.parametrize("text", ["", "x", "x=", "x=3-1", "x=a", "x=0-4", "x=0-1,mine"])
def test_what_holds_nothing_is_refused(text):
    with pytest.raises(InvalidInputError):
        place(["A=1"], 4, held=[text])


def test_a_layout_prints_as_a_table():
    assert str(place({"A": 2, "B": 9}, 12)) == " 0-1  A\n2-10  B\n  11  free"


def test_of_many_holders_the_first_are_named():
    assert place([f"m{n}=1,shared" for n in range(5)], 1).table == "0 m0, m1, m2, m3 and m4"
    assert place([f"m{n}=1,shared" for n in range(9)], 1).table == "0 m0, m1, m2, m3 and 5 others"


# -- where models are already


def now(name, *groups, devices=None, **more):
    held = tuple(Group(*g) if isinstance(g, tuple) else Group(g) for g in groups)
    return Wish(name, devices or held[0].size, now=held, **more)


def test_nobody_is_moved_because_another_has_gone():
    assert at(arrange([now("B", (2, 2)), Wish("C", 2)], 6)) == {"B": ["2-3"], "C": ["0-1"]}


def test_who_wants_more_and_does_not_get_it_keeps_what_it_has():
    layout = arrange([now("A", (0, 1), devices=3), now("B", (1, 2))], 4)
    assert at(layout) == {"B": ["1-2"]}
    assert layout.refused == {"A": "A asks for 3 devices in a row, and 2 of 4 are free"}
    assert layout.table == "0 A; 1-2 B; 3 free"


def test_two_change_places_at_once():
    layout = arrange([now("A", 0, start=1), now("B", 1, start=0)], 2)
    assert at(layout) == {"A": ["1"], "B": ["0"]}


def test_a_move_that_cannot_be_does_not_keep_others_from_theirs():
    wishes = [now("A", 0, devices=4), now("B", 1, start=2), Wish("C", start=2), Wish("D")]
    layout = arrange(wishes, 4)
    assert at(layout) == {"B": ["2"], "D": ["1"]}
    assert layout.table == "0 A; 1 D; 2 B; 3 free"


def test_who_wants_to_be_alone_now_goes_and_the_others_stay():
    layout = arrange([now("A", 0, shared=True), now("B", 0), now("C", 0, shared=True)], 2)
    assert at(layout) == {"A": ["0"], "B": ["1"], "C": ["0"]}
    full = arrange([now("A", 0, shared=True), now("B", 0), Wish("C", shared=True)], 1)
    assert at(full) == {"A": ["0"]}
    assert sorted(full.refused) == ["B", "C"]


def test_on_fewer_devices_than_before_everybody_looks_anew():
    layout = arrange([now("A", (2, 2)), now("B", (0, 2))], 3)
    assert at(layout) == {"B": ["0-1"]}
    assert layout.refused == {"A": "A asks for 2 devices in a row, and 1 of 3 are free"}


def test_the_words_do_not_depend_on_who_was_there_first():
    first = arrange([Wish("A", shared=True), now("B", 0, shared=True), Wish("C", start=0)], 1)
    again = arrange([now("A", 0, shared=True), now("B", 0, shared=True), Wish("C", start=0)], 1)
    assert first.refused == again.refused == {"C": "C asks for device 0, of which A and B hold some"}


def test_what_is_no_list_of_models_and_who_is_not_placed_are_told():
    with pytest.raises(InvalidInputError, match=r"'A=2' is one text: put it into a list"):
        place("A=2", 4)
    with pytest.raises(NotFoundError, match=r"'B' is not placed; there is: A"):
        place(["A=2"], 4).gpus("B")


def test_who_shares_stays_with_nobody_who_does_not():
    layout = arrange([now("A", 0, shared=True)], 2, held=[Held("x", Group(0))])
    assert at(layout) == {"A": ["1"]}

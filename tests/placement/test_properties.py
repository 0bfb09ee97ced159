"""What holds of every arrangement, whatever is asked for."""

from dataclasses import replace
from itertools import combinations, pairwise

from hypothesis import given
from hypothesis import strategies as st

from gravswell.placement import Group, Held, Wish, arrange
from gravswell.placement.groups import groups_of

DEVICES = st.integers(0, 10)


@st.composite
def one_wish(draw, name):
    devices = draw(st.integers(1, 5))
    return Wish(
        name,
        devices,
        copies=draw(st.integers(1, 4)) if devices == 1 else 1,
        start=draw(st.none() | st.integers(0, 9)),
        shared=draw(st.booleans()),
    )


@st.composite
def wishes(draw, most=8):
    return [draw(one_wish(f"m{n}")) for n in range(draw(st.integers(0, most)))]


@st.composite
def machine(draw):
    """Devices, and what others hold of them."""
    devices = draw(DEVICES)
    held = []
    for n in range(draw(st.integers(0, 2)) if devices else 0):
        start = draw(st.integers(0, devices - 1))
        held.append(Held(f"x{n}", Group(start, draw(st.integers(1, devices - start))), draw(st.booleans())))
    return devices, held


@st.composite
def changed(draw):
    """A machine whose models were arranged once, and then asked for something else, or went, or came."""
    devices, held = draw(machine())
    before = draw(wishes())
    layout = arrange(before, draw(st.just(devices) | st.integers(devices, 12)), held=held)
    after = []
    for wish in before:
        if draw(st.integers(0, 4)) == 0:
            continue
        asked = draw(one_wish(wish.name)) if draw(st.booleans()) else wish
        after.append(replace(asked, now=layout.placed.get(wish.name, ())))
    return devices, held, [*after, *(draw(one_wish(f"new{n}")) for n in range(draw(st.integers(0, 2))))]


def own(layout, held):
    """What the arrangement added to ``held``, of those that were placed."""
    return [h for h in layout.held[len(held) :] if h.name in layout.placed]


def is_lawful(layout, devices, held, asked):
    """Each model has what it asked for or is refused, within the devices, and alone unless all there share."""
    for wish in asked:
        groups = layout.placed.get(wish.name)
        assert (groups is None) == (wish.name in layout.refused)
        if groups is not None:
            assert [g.size for g in groups] == [wish.devices] * wish.copies
            assert wish.start is None or groups == wish.asked
    placed = own(layout, held)
    assert all(h.group.start >= 0 and h.group.end <= devices for h in placed)
    for one, other in [*combinations(placed, 2), *((p, h) for p in placed for h in held)]:
        if one.group.overlaps(other.group):
            assert one.shared
            assert other.shared
            assert one.name != other.name


@given(machine(), wishes())
def test_nobody_overlaps_but_those_who_share_and_nothing_is_beyond_the_devices(place, asked):
    devices, held = place
    layout = arrange(asked, devices, held=held)
    is_lawful(layout, devices, held, asked)
    assert layout == arrange(asked, devices, held=held)


@given(machine(), wishes(), one_wish("last"))
def test_one_more_at_the_end_changes_nothing_for_the_others(place, asked, last):
    devices, held = place
    less, more = arrange(asked, devices, held=held), arrange([*asked, last], devices, held=held)
    assert {**more.placed} | less.placed == more.placed
    assert less.refused.keys() == more.refused.keys() - {"last"}


@given(machine(), wishes())
def test_who_is_refused_a_start_is_told_who_has_it(place, asked):
    devices, held = place
    layout = arrange(asked, devices, held=held)
    for wish in asked:
        why = layout.refused.get(wish.name)
        if why is not None and wish.start is not None:
            there = [h.name for h in layout.held if any(h.group.overlaps(group) for group in wish.asked)]
            assert f"and there are {devices} from 0 on" in why or any(name in why for name in there)


@given(machine(), wishes())
def test_a_device_is_left_free_only_if_nobody_who_is_refused_could_use_it(place, asked):
    devices, held = place
    layout = arrange(asked, devices, held=held)
    free = [group for group, holders in layout.rows if not holders]
    widest = max((group.size for group in free), default=0)
    single = sum(group.size for group in free)
    for wish in asked:
        if wish.name in layout.refused and wish.start is None:
            assert wish.devices > widest or wish.copies > single


@given(changed())
def test_who_has_what_it_asks_for_stays_and_nobody_loses_what_it_has(case):
    devices, held, asked = case
    layout = arrange(asked, devices, held=held)
    is_lawful(layout, devices, held, asked)
    crowd = [
        device for group in [*(g for w in asked for g in w.now), *(h.group for h in held)] for device in group.devices
    ]
    for wish in asked:
        if not all(group.end <= devices for group in wish.now):
            continue
        alone = all(crowd.count(device) == 1 for group in wish.now for device in group.devices)
        if wish.now and wish.is_content and alone:
            assert layout.placed[wish.name] == wish.now
        if wish.name in layout.refused:
            assert {h.group for h in layout.held if h.name == wish.name} == set(wish.now)


@given(changed())
def test_to_arrange_what_is_arranged_changes_nothing(case):
    devices, held, asked = case
    once = arrange(asked, devices, held=held)
    settled = [replace(w, now=tuple(h.group for h in once.held[len(held) :] if h.name == w.name)) for w in asked]
    again = arrange(settled, devices, held=held)
    assert (again.placed, set(again.held), again.refused) == (once.placed, set(once.held), once.refused)


@given(changed(), one_wish("last"))
def test_one_more_at_the_end_changes_nothing_for_those_that_are_there(case, last):
    devices, held, asked = case
    less, more = arrange(asked, devices, held=held), arrange([*asked, last], devices, held=held)
    assert {**more.placed} | less.placed == more.placed


@given(st.sets(st.integers(0, 40)))
def test_devices_are_the_fewest_groups(devices):
    groups = groups_of(devices)
    assert [device for group in groups for device in group.devices] == sorted(devices)
    assert all(one.end < other.start for one, other in pairwise(groups))

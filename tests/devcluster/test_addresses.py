from ipaddress import IPv4Address, IPv4Network

from gravswell_operator.devcluster.node.addresses import LOOPBACK, Addresses


def test_each_pod_has_an_address_of_its_own_in_the_nodes_network():
    network = IPv4Network("10.250.0.0/29")
    addresses = Addresses(network)
    taken = [addresses.take() for _ in range(6)]
    assert sorted(map(IPv4Address, taken)) == list(network.hosts())


def test_an_address_that_was_given_back_is_taken_again():
    addresses = Addresses(IPv4Network("10.250.0.0/30"))
    one, _ = addresses.take(), addresses.take()
    addresses.release(one)
    assert addresses.take() == one


def test_by_default_they_are_this_machines_without_any_doing():
    assert IPv4Address(Addresses().take()) in LOOPBACK
    assert LOOPBACK.is_loopback

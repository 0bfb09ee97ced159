"""Ports of the nodes that a server's Service takes, on an API server that hands them out."""

from typing import Any

import pytest


@pytest.fixture
def ports(world):
    """``ports(server)``: type and ports of the nodes of the server's Service, by protocol."""
    world.make_repository()

    def found(server: str = "server") -> tuple[str, dict[str, int | None]]:
        service: dict[str, Any] | None = world.get("service", server)
        if service is None:
            return "", {}
        return service["spec"]["type"], {port["name"]: port.get("nodePort") for port in service["spec"]["ports"]}

    return found


def test_the_ports_of_the_nodes_are_those_of_the_spec_and_change_with_it(world, ports):
    def taken(http: int, grpc: int) -> bool:
        type_, by_name = ports()
        return type_ == "NodePort" and (by_name["http"], by_name["grpc"]) == (http, grpc)

    world.make_server(service={"type": "NodePort", "nodePorts": {"http": 30080, "grpc": 30081}})
    world.until(lambda: taken(30080, 30081))
    assert ports()[1]["metrics"], "the cluster chooses what was left to it"
    world.make_server(service={"type": "NodePort", "nodePorts": {"http": 30081, "grpc": 30080}})
    world.until(lambda: taken(30081, 30080))
    world.make_server(service={"type": "NodePort"})
    world.condition("inferenceserver", "server", "Progressing", status="False", reason="RolledOut")
    assert all(ports()[1].values())
    world.make_server(service={})
    world.until(lambda: ports() == ("ClusterIP", {"http": None, "grpc": None, "metrics": None}))


def test_a_port_that_another_service_has_is_told_and_taken_once_it_is_free(world, ports):
    chosen = {"type": "NodePort", "nodePorts": {"http": 30082}}
    world.make_server("first", service=chosen)
    world.until(lambda: ports("first")[1].get("http") == 30082)
    world.make_server(service=chosen)
    said = world.condition("inferenceserver", "server", status="False", reason="Rejected")
    assert "30082" in said["message"]
    assert "provided port is already allocated" in said["message"]
    world.until(world.pods)
    world.delete("inferenceserver", "first")
    world.until(lambda: ports()[1].get("http") == 30082)


def test_a_port_outside_of_the_clusters_range_is_told(world, ports):
    world.make_server(service={"type": "NodePort", "nodePorts": {"grpc": 8001}})
    said = world.condition("inferenceserver", "server", status="False", reason="Rejected")
    assert "8001" in said["message"]
    assert "valid ports is 30000-32767" in said["message"]

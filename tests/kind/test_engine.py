"""What docker leaves outside of the machine in which it runs: nothing."""

from pathlib import Path

from gravswell_operator.devcluster.realnode import Machine, node_packages, static_image

from .engine import Docker


def written() -> dict[Path, float]:
    """The files and folders of this machine that a docker daemon makes or changes, wherever it is told to be."""
    places = (Path("/etc/docker"), Path("/opt"), Path("/opt/containerd"))
    return {path: path.stat().st_mtime for place in places for path in (place, *place.glob("*")) if path.exists()}


def test_a_daemon_runs_a_container_and_leaves_the_files_of_this_machine_as_they_were(tmp_path):
    image = "gravswell.dev/hello:1"
    archive = static_image(tmp_path / "hello.tar", image, node_packages(), ["echo", "hello"])
    before = written()
    with Machine(tmp_path / "machine", name="docker") as machine:
        docker = Docker(machine)
        docker.start()
        docker.run("docker", "load", "--input", archive)
        assert docker.run("docker", "run", "--rm", "--network=none", image) == "hello\n"
        assert docker.run("docker", "ps", "--all", "--quiet") == ""
        assert docker.run("cat", "/etc/resolv.conf") == ""
        assert docker.run("ls", "/etc/docker", "/opt/containerd")
    assert written() == before

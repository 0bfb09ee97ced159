"""What a partition's repository, its listing and the agent of one rank make of it."""

import asyncio
from datetime import UTC, datetime

from gravswell.partitions import partition
from gravswell.quiver.reader import RepositoryReader
from gravswell.serving.agent.desired import FileSource, OfRank
from gravswell.serving.agent.lister import list_repository
from gravswell.serving.contracts import Desired, DesiredModel

from ...partitions.graphs import mlp


def test_a_listing_says_which_rank_serves_what(tmp_path):
    with partition(mlp(8, 16, 4), 2, "row", name="net") as made:
        made.publish(tmp_path)
    entries = {e.name: e for e in list_repository(str(tmp_path), datetime.now(UTC)).entries}
    (whole,) = entries["net"].versions
    assert [(part.name, part.version, part.rank) for part in whole.parts] == [
        ("net-rank-0", 1, 0),
        ("net-rank-1", 1, 1),
    ]
    assert [part.digest for part in whole.parts] == [entries[f"net-rank-{k}"].versions[0].digest for k in range(2)]
    assert entries["net-rank-0"].versions[0].parts == ()
    members = RepositoryReader(tmp_path).manifest("net", 1)[0].members
    assert [(member.model, member.rank) for member in members] == [
        ("net-rank-0", 0),
        ("net-rank-1", 1),
        ("net-combine", None),
    ]
    assert b'"rank": null' not in RepositoryReader(tmp_path).manifest("net", 1)[1]


async def test_the_agent_of_a_rank_is_told_of_its_parts_only(tmp_path):
    digest = "0" * 64
    parts = [{"name": f"net-rank-{k}", "version": 3, "digest": digest, "rank": k} for k in range(2)]
    model = DesiredModel.model_validate({"name": "net", "version": 7, "digest": digest, "parts": parts, "instances": 2})
    (tmp_path / "desired.json").write_text(Desired(repository="r", models=(model,), gpus=1).to_json())
    told = asyncio.Queue[Desired]()
    following = asyncio.create_task(OfRank(FileSource(tmp_path / "desired.json", 60), 1).follow(told.put_nowait))
    (own,) = (await asyncio.wait_for(told.get(), 30)).models
    following.cancel()
    assert own == DesiredModel(name="net-rank-1", version=3, digest=digest, instances=2, gpus=(0,))

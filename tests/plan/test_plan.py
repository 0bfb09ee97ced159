"""``gravswell plan``: what would be created, what would stop it, and how that reaches a shell."""

import json
import subprocess
import sys

import pytest
import yaml

GOOD = ("GPUNodePool", "ModelRepository", "InferenceServer", "Model")


@pytest.fixture
def written(manifest, tmp_path):
    """``written(Kind={change}, ...) -> path``: the good manifests with changes; None leaves one out."""

    def write(**changes):
        documents = [manifest(kind, changes.get(kind, {})) for kind in GOOD if changes.get(kind, {}) is not None]
        path = tmp_path / "manifests.yaml"
        path.write_text(yaml.safe_dump_all(documents))
        return path

    return write


def test_a_good_set(run, written):
    done = run("plan", written(), "-o", "json")
    assert (done.code, done.err) == (0, "")
    answer = json.loads(done.out)
    assert answer["notes"] == []
    made = {o["object"]: [c["kind"] for c in o["creates"]] for o in answer["objects"]}
    assert list(made) == [
        "GPUNodePool pool",
        "ModelRepository default/models",
        "InferenceServer default/server",
        "Model default/model",
    ]
    assert made["InferenceServer default/server"].count("Service") == 2
    needs = answer["objects"][2]["needs"]
    assert (needs["replicas"], needs["gpus"], needs["surge"]) == (1, 1, True)


def test_text_names_every_object(run, written):
    done = run("plan", written())
    assert done.code == 0
    assert "Deployment default/server" in done.out
    assert "at most 1 replica: 1 GPU, 1.1 vCPUs" in done.out


def test_a_roll_out_that_depends_on_an_autoscaler_is_told_as_that(run, written):
    """The pool has one node of four GPUs; the operator goes by the replicas that there are when it begins."""
    words = "while there are fewer, and a node has room, the new one starts first"
    for most, told in ((3, False), (4, True)):
        scaled = {"replicas": None, "autoscaling": {"minReplicas": 1, "maxReplicas": most}}
        answer = json.loads(run("plan", written(InferenceServer={"spec": scaled}), "-o", "json").out)
        assert answer["objects"][2]["needs"]["surge"] is not told
        assert any(words in note["message"] for note in answer["notes"]) is told
    answer = json.loads(run("plan", written(InferenceServer={"spec": {"replicas": 4}}), "-o", "json").out)
    assert answer["objects"][2]["needs"]["surge"] is False
    assert not [note for note in answer["notes"] if words in note["message"]]


def test_ranks_are_told_as_a_group(run, written):
    done = run("plan", written(InferenceServer={"spec": {"replicas": None, "ranks": 2}}))
    assert done.code == 0
    assert "StatefulSet default/server" in done.out
    assert "Deployment default/server" not in done.out
    assert "2 ranks: 2 GPUs, 2.2 vCPUs" in done.out
    assert "all ranks stop, then all start" in done.out


def test_yaml_is_what_would_be_applied(run, written):
    done = run("plan", written(), "-o", "yaml", "-n", "team")
    kinds = [document["kind"] for document in yaml.safe_load_all(done.out)]
    assert "Deployment" in kinds
    assert {d["metadata"]["namespace"] for d in yaml.safe_load_all(done.out)} == {"team"}


@pytest.mark.parametrize("kind", GOOD)
def test_nothing_is_created_for_what_is_suspended(run, written, kind):
    done = run("plan", written(**{kind: {"spec": {"suspend": True}}}), "-o", "json")
    answer = json.loads(done.out)
    suspended = next(o for o in answer["objects"] if o["object"].startswith(f"{kind} "))
    assert (done.code, suspended["creates"]) == (0, [])
    assert [n["object"] for n in answer["notes"] if "spec.suspend is true" in n["message"]] == [suspended["object"]]


@pytest.mark.parametrize(
    ("changes", "rival", "child"),
    [
        ({"ModelRepository": {"metadata": {"name": "a"}}, "InferenceServer": {"metadata": {"name": "a-lister"}}},
         "ModelRepository default/a", "Deployment a-lister"),
    ],
)  # fmt: skip
def test_two_that_would_make_an_object_of_one_name(run, written, changes, rival, child):
    changes["InferenceServer"]["spec"] = {"repositoryRef": {"name": "a"}}
    done = run("plan", written(**changes), "-o", "json")
    (note,) = [n for n in json.loads(done.out)["notes"] if n["severity"] == "error"]
    assert done.code == 2
    assert note["object"] == "InferenceServer default/a-lister"
    assert child in note["message"]
    assert f"would be {rival}'s too" in note["message"]


CUSTOM = {"type": "Custom", "static": None, "custom": {"name": "rack"}}


@pytest.mark.parametrize(
    ("changes", "code", "says"),
    [
        (
            {"ModelRepository": None},
            0,
            "warning: InferenceServer default/server: ModelRepository models is not in these",
        ),
        ({"GPUNodePool": None}, 0, "GPUNodePool pool is not in these files"),
        (
            {"GPUNodePool": {"spec": {"provider": CUSTOM, "size": 1}}},
            0,
            "warning: GPUNodePool pool: no node is made until the operator's image has the provider rack",
        ),
        ({"InferenceServer": None}, 0, "warning: Model default/model: InferenceServer server is not in these files"),
        ({"Model": None}, 0, "no Model in these files names it"),
        ({"InferenceServer": {"spec": {"replicas": 9}}}, 0, "ask for 9 GPUs, and one node offers 4"),
        (
            {"InferenceServer": {"spec": {"gpus": 5}}},
            2,
            "error: InferenceServer default/server: a replica asks for 5 GPUs",
        ),
        ({"ModelRepository": {"spec": {"url": "file:///x"}}}, 0, "only the development cluster's node can read"),
        ({"GPUNodePool": {"spec": {"allowedNamespaces": ["other"]}}}, 2, "allows the namespaces other"),
        (
            {"Model": {"spec": {"rollout": {"strategy": "Canary"}}}},
            0,
            "has no more than one replica, so a canary",
        ),
        (
            {
                "InferenceServer": {"spec": {"replicas": None, "ranks": 2}},
                "Model": {"spec": {"rollout": {"strategy": "Canary"}}},
            },
            0,
            "all ranks of InferenceServer server are one replica",
        ),
    ],
)
def test_notes(run, written, changes, code, says):
    done = run("plan", written(**changes))
    assert done.code == code
    assert says in done.err


def test_devices_that_others_get_first(run, manifest, tmp_path):
    path = tmp_path / "m.yaml"
    asked = {"a": {"devices": 3}, "b": {"devices": 2}, "c": {"devices": 1, "shared": True}, "d": {}}
    models = [
        manifest("Model", {"metadata": {"name": name}, "spec": {"entry": name, "placement": placement}})
        for name, placement in asked.items()
    ]
    path.write_text(yaml.safe_dump_all([manifest("InferenceServer", {"spec": {"gpus": 4}}), *models]))
    done = run("plan", path, "-o", "json")
    (note,) = [n for n in json.loads(done.out)["notes"] if n["severity"] == "error"]
    assert (done.code, note["object"]) == (2, "Model default/b")
    assert "b asks for 2 devices in a row, and 0 of 4 are free. Who holds what on each replica" in note["message"]
    assert "0-2 a; 3 c." in note["message"]


def test_two_models_for_one_entry(run, manifest, tmp_path):
    path = tmp_path / "m.yaml"
    two = [manifest("Model", {"metadata": {"name": name}}) for name in ("a", "b")]
    path.write_text(yaml.safe_dump_all([manifest("InferenceServer"), *two]))
    done = run("plan", path)
    assert done.code == 2
    assert "error: Model default/b: Model a is for the same entry my-model" in done.err


def test_a_list_is_its_items(run, manifest):
    items = [manifest(kind) for kind in GOOD]
    nested = {"apiVersion": "v1", "kind": "List", "items": items[2:]}
    listed = {"apiVersion": "v1", "kind": "List", "items": [*items[:2], nested]}
    done = run("plan", "-", "-o", "json", stdin=yaml.safe_dump(listed))
    assert (done.code, done.err) == (0, "")
    assert [o["object"].partition(" ")[0] for o in json.loads(done.out)["objects"]] == list(GOOD)
    nested["items"] = [manifest("InferenceServer", {"spec": {"gpus": "one"}})]
    done = run("plan", "-", stdin=yaml.safe_dump(listed))
    assert done.code == 2
    assert "-, items[2], items[0]: InferenceServer server is invalid" in done.err


def test_one_name_twice_is_told_and_the_last_one_counts(run, manifest):
    twice = [manifest("InferenceServer", {"spec": {"replicas": replicas}}) for replicas in (1, 2)]
    others = [manifest(kind) for kind in GOOD if kind != "InferenceServer"]
    done = run("plan", "-", "-o", "json", stdin=yaml.safe_dump_all([*twice, *others]))
    assert done.code == 2
    answer = json.loads(done.out)
    assert [(n["object"], n["severity"]) for n in answer["notes"]] == [("InferenceServer default/server", "error")]
    assert "the last one replaces the others" in answer["notes"][0]["message"]
    assert [o["needs"]["replicas"] for o in answer["objects"] if o["needs"]] == [2]


@pytest.mark.parametrize(
    ("text", "code", "says"),
    [
        ("a: [", 2, "is not YAML"),
        ("[1]", 2, "a manifest is a mapping"),
        ("", 2, "no object of gravswell.dev/v1alpha1"),
        ("apiVersion: v1\nkind: Namespace\n", 2, "Namespace is not gravswell's; passed over"),
        ("apiVersion: gravswell.dev/v1alpha1\nkind: Wrong\n", 2, "'Wrong' is none of gravswell's"),
    ],
)
def test_what_is_no_manifest_is_one_message(run, text, code, says):
    done = run("plan", "-", stdin=text)
    assert done.code == code
    assert says in done.err


def test_every_mistake_in_a_manifest_is_a_line_with_its_path(run, written):
    done = run(
        "plan", written(InferenceServer={"spec": {"replicas": 1, "autoscaling": {"minReplicas": 1, "maxReplicas": 2}}})
    )
    assert done.code == 2
    assert "set exactly one of replicas, autoscaling and ranks" in done.err


def test_files_and_folders(run, written, tmp_path):
    assert run("plan", tmp_path / "absent.yaml").code == 3
    empty = tmp_path / "empty"
    empty.mkdir()
    assert run("plan", empty).code == 3
    assert run("plan", written().parent).code == 0


def test_a_shell_gets_the_code_and_the_message_in_a_pipe(written):
    """As a process of its own, as everything else here is not."""
    invalid = written(InferenceServer={"spec": {"gpus": 5}}).read_text()
    done = subprocess.run(
        [sys.executable, "-m", "gravswell", "plan", "-"],
        input=invalid,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
        env={"PATH": "/usr/bin:/bin"},
    )
    assert done.returncode == 2
    assert "a replica asks for 5 GPUs" in done.stderr
    assert "Traceback" not in done.stderr
    assert "InferenceServer default/server" in done.stdout


@pytest.mark.parametrize(
    ("spec", "note"),
    [
        (
            {"credentialsSecretRef": {"name": "keys"}},
            "its pods wait until namespace default has the Secret keys, with AWS_ACCESS_KEY_ID and",
        ),
        ({"serviceAccountName": "reader"}, "no pod is made until namespace default has the ServiceAccount reader"),
        (
            {},
            "without credentialsSecretRef and serviceAccountName s3://bucket/zoo is read with the nodes' own identity",
        ),
    ],
)
def test_a_bucket_needs_somebody_who_may_read_it(run, written, spec, note):
    done = run("plan", written(ModelRepository={"spec": {"url": "s3://bucket/zoo", **spec}}), "-o", "json")
    assert done.code == 0
    (found,) = json.loads(done.out)["notes"]
    assert (found["object"], found["severity"]) == ("ModelRepository default/models", "warning")
    assert found["message"].startswith(note)


KARPENTER = {
    "type": "Karpenter",
    "static": None,
    "karpenter": {"nodeClassRef": {"group": "karpenter.k8s.aws", "kind": "EC2NodeClass", "name": "gpus"}},
}


def test_what_karpenter_would_be_told(run, written):
    change = {"spec": {"provider": KARPENTER, "autoscaling": {"max": 2}}}
    path = written(GPUNodePool=change, InferenceServer={"spec": {"replicas": 9}})
    done = run("plan", path, "-o", "json")
    assert done.code == 0
    answer = json.loads(done.out)
    (made,) = next(o["creates"] for o in answer["objects"] if o["object"] == "GPUNodePool pool")
    assert (made["kind"], made["spec"]["limits"]["nodes"]) == ("NodePool", "2")
    messages = [note["message"] for note in answer["notes"]]
    assert "no node is made until the cluster has Karpenter, and EC2NodeClass gpus" in messages
    assert any("ask for 9 GPUs, and its autoscaling.max of 2 offers 8" in message for message in messages)
    assert "NodePool pool" in run("plan", path).out


GATEWAY = {"http": {"parentRefs": [{"name": "gate", "namespace": "infra"}]}}
WEIGHTED = {"rollout": {"strategy": "Canary", "canary": {"steps": [{"replicas": 1, "weight": "5%"}]}}}


def test_routes_are_planned_and_need_a_gateway_beside_them(run, written):
    server = {"spec": {"service": {"gateway": GATEWAY}, "replicas": 2}}
    done = run("plan", written(InferenceServer=server, Model={"spec": WEIGHTED}), "-o", "json")
    assert done.code == 0
    answer = json.loads(done.out)
    assert [c["kind"] for c in answer["objects"][2]["creates"] if "Route" in c["kind"]] == ["HTTPRoute"]
    assert [c["metadata"]["name"] for c in answer["objects"][2]["creates"] if c["kind"] == "Service"] == [
        "server",
        "server-headless",
    ]
    (note,) = answer["notes"]
    assert "has the Gateway API, and infra/gate, whose listeners allow routes from namespace default" in note["message"]


def test_a_weight_without_a_gateway_would_stop_every_new_version(run, written):
    done = run("plan", written(InferenceServer={"spec": {"replicas": 2}}, Model={"spec": WEIGHTED}), "-o", "json")
    assert done.code == 2
    (note,) = [note for note in json.loads(done.out)["notes"] if note["severity"] == "error"]
    assert "InferenceServer server has none; set its service.gateway, or leave weight out" in note["message"]


GATE = {"name": "gate"}
A, B = ["a.example.com"], ["b.example.com"]


@pytest.mark.parametrize(
    ("http", "grpc", "collides"),
    [
        ({"parentRefs": [GATE]}, {"parentRefs": [GATE]}, True),
        ({"parentRefs": [GATE], "hostnames": A}, {"parentRefs": [GATE]}, True),
        ({"parentRefs": [GATE], "hostnames": A}, {"parentRefs": [GATE], "hostnames": B + A}, True),
        ({"parentRefs": [GATE], "hostnames": A}, {"parentRefs": [GATE], "hostnames": B}, False),
        ({"parentRefs": [GATE]}, {"parentRefs": [{"name": "other"}, GATE]}, True),
        ({"parentRefs": [GATE]}, {"parentRefs": [{**GATE, "namespace": "infra"}]}, False),
        ({"parentRefs": [{**GATE, "sectionName": "web"}]}, {"parentRefs": [GATE]}, True),
        ({"parentRefs": [{**GATE, "sectionName": "web"}]}, {"parentRefs": [{**GATE, "sectionName": "grpc"}]}, False),
    ],
)
def test_two_protocols_that_a_listener_cannot_tell_apart_are_told(run, written, http, grpc, collides):
    server = {"spec": {"service": {"gateway": {"http": http, "grpc": grpc}}, "replicas": 2}}
    answer = json.loads(run("plan", written(InferenceServer=server), "-o", "json").out)
    assert any("same hostname of the same listener" in n["message"] for n in answer["notes"]) is collides
    assert answer["blocked"] is collides

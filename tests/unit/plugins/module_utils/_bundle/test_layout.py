"""What a bundle says of itself, and taking models and images from one."""

from __future__ import annotations

import base64
import json
from pathlib import Path

import pytest
from ansible_collections.sparkfleet.vllm.plugins.module_utils._bundle import layout, packagers, plan, write
from ansible_collections.sparkfleet.vllm.plugins.module_utils._common import copying
from ansible_collections.sparkfleet.vllm.plugins.module_utils._common.upstream import Unusable, UpstreamError
from ansible_collections.sparkfleet.vllm.plugins.module_utils._images import oci, storage
from ansible_collections.sparkfleet.vllm.plugins.module_utils._images.folder import FolderSource
from ansible_collections.sparkfleet.vllm.plugins.module_utils._images.reference import parse_reference
from ansible_collections.sparkfleet.vllm.plugins.module_utils._models import snapshot
from ansible_collections.sparkfleet.vllm.plugins.module_utils._models.compare import scan
from ansible_collections.sparkfleet.vllm.plugins.module_utils._models.ensure import Options, ensure
from ansible_collections.sparkfleet.vllm.plugins.modules import bundle_info, bundle_serve
from helpers import bundle as maker

ENTRY = {"size": 1, "sha256": "a" * 64}


def read(bundle):
    found = layout.read(bundle)
    assert found is not None
    return found


@pytest.fixture
def bundle(tmp_path):
    """A whole bundle; gives its directory."""
    maker.fill_store(tmp_path / "maker")
    folder = tmp_path / "bundle"
    wanted = maker.wanted(maker.fill_registry(folder / "registry"))
    options = plan.Options(folder, str(tmp_path / "maker"))
    write.write(wanted, options, maker.Collected(), maker.NOW)
    return folder


def text(**other):
    data = {
        "version": 1, "recipe": "lab", "created": "", "machine": "aarch64", "python": "3.12", "image": "a@sha256:1",
        "requirements": [], "packages": [], "files": {"recipe.yml": ENTRY, "lock.yml": ENTRY},
    }  # fmt: skip
    return json.dumps({**data, **other})


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ("{", "expected JSON"),
        ("[]", "expected a bundle of version 1"),
        (text(version=2), "expected a bundle of version 1, seen 2"),
        (text(machine=None), "expected machine as text"),
        (text(packages="docker-registry"), "expected packages as a list"),
        (text(files=[]), "expected files as"),
        (text(files={"../../etc/passwd": ENTRY}), "it leaves the snapshot"),
        (text(files={"/etc/passwd": ENTRY}), "it is absolute"),
        (text(files={"recipe.yml": {"size": 1, "sha256": "A" * 64}, "lock.yml": ENTRY}), "size and sha256 of recipe.yml"),
        (text(files={"recipe.yml": {"size": "1", "sha256": "a" * 64}, "lock.yml": ENTRY}), "size and sha256 of recipe.yml"),
        (text(files={"recipe.yml": ENTRY}), "expected lock.yml among its files"),
    ],
)  # fmt: skip
def test_what_is_no_bundle_json_is_refused(given, words):
    with pytest.raises(layout.BundleError, match="make the bundle again") as refused:
        layout.parse(given, "bundle.json")
    assert words in str(refused.value)


def test_no_directory_is_no_bundle_and_a_directory_without_bundle_json_is_an_error(tmp_path):
    assert layout.read(tmp_path / "nowhere") is None
    with pytest.raises(layout.BundleError, match="cut short"):
        layout.read(tmp_path)


def test_missing_short_and_linked_files_are_named(bundle):
    files = read(bundle).files
    assert layout.damaged_by_size(bundle, files.items()) == []
    (bundle / "lock.yml").unlink()
    (bundle / "recipe.yml").write_text("n")
    wheel = bundle / "simple/docker/docker-7.2.0-py3-none-any.whl"
    wheel.rename(wheel.with_suffix(".old"))
    wheel.symlink_to(wheel.with_suffix(".old"))
    problems = layout.damaged_by_size(bundle, files.items())
    assert [problem.partition(":")[0] for problem in sorted(problems)] == [
        "lock.yml",
        "recipe.yml",
        str(wheel.relative_to(bundle)),
    ]
    assert "regular file" in " ".join(problems)


# -- models


def brought(store, bundle):
    options = Options(str(store), workers=2)
    return ensure([maker.manifest()], options, lambda: layout.BundleFetcher(bundle))


def test_models_come_from_a_bundle_and_are_verified(bundle, tmp_path):
    (report,) = brought(tmp_path / "store", bundle)
    assert (report.state, report.fetched_bytes) == ("fetched", 9002)
    assert report.verified_bytes == 9002
    (again,) = brought(tmp_path / "store", bundle)
    assert again.state == "present"


def test_a_damaged_model_of_a_bundle_is_named_and_nothing_is_promoted(bundle, tmp_path):
    damaged = bundle / f"models/lab--body/{maker.COMMIT}/weights/model.safetensors"
    damaged.unlink()
    damaged.write_bytes(b"W" * 9000)
    with pytest.raises(
        snapshot.SnapshotError, match=r"weights/model.safetensors: expected sha256 .* bundle is damaged"
    ):
        brought(tmp_path / "store", bundle)
    assert not (tmp_path / f"store/models/lab--body/{maker.COMMIT}").exists()


def test_a_model_that_a_bundle_lacks_is_named(bundle, tmp_path):
    (bundle / f"models/lab--body/{maker.COMMIT}/config.json").unlink()
    with pytest.raises(
        layout.BundleError, match=r"config.json: expected a file of 2 bytes, seen No such file"
    ):
        brought(tmp_path / "store", bundle)


# -- image


def image_store(root, bundle):
    reference = parse_reference(read(bundle).image)
    return storage.ImageStore(str(root), reference, reference.digest or "", "arm64")


def test_an_image_comes_from_a_bundle_as_a_registry_would_serve_it(bundle, tmp_path):
    image = image_store(tmp_path / "registry", bundle)
    report = image.ensure([FolderSource(str(bundle / "registry"))])
    assert report.state == "fetched"
    assert image.whole()
    held = {path: status.st_size for path, status in scan(bundle / "registry").items()}
    brought = {
        path: status.st_size for path, status in scan(tmp_path / "registry").items() if path != ".lock"
    }
    assert brought == held


def test_an_attestation_is_part_of_a_bundle_and_may_be_missing_from_one_of_before(bundle, tmp_path):
    place, image = bundle / "registry", read(bundle).image
    held = layout.image_files(place, image, "aarch64")
    assert set(held) == {path for path in scan(place) if path != ".lock"}
    index = json.loads((place / oci.blob_path(image.partition("@")[2])).read_text())
    attestation = place / oci.blob_path(index["manifests"][1]["digest"])
    attestation.unlink()
    # Manifest, configuration and layer, each with its link.
    assert len(layout.image_files(place, image, "aarch64")) == len(held) - 6
    store = image_store(tmp_path / "registry", bundle)
    assert str(attestation) in store.ensure([FolderSource(str(place))]).lacking[0]
    attestation.write_text("other bytes")
    with pytest.raises(layout.BundleError, match="it is damaged"):
        layout.image_files(place, image, "aarch64")


@pytest.mark.parametrize("how", ["damaged", "missing"])
def test_a_blob_that_a_bundle_has_wrong_or_not_is_named(bundle, tmp_path, how):
    digest = "sha256:" + maker.sha256(b"layer one")
    blob = bundle / "registry" / oci.blob_path(digest)
    if how == "damaged":
        blob.write_bytes(b"layer 0ne")
    else:
        blob.unlink()
    with pytest.raises(UpstreamError, match=f"{digest}.*seen"):
        image_store(tmp_path / "registry", bundle).ensure([FolderSource(str(bundle / "registry"))])
    assert not image_store(tmp_path / "registry", bundle).whole()


def test_a_manifest_with_other_bytes_is_refused(bundle):
    digest = read(bundle).image.rpartition("@")[2]
    (bundle / "registry" / oci.blob_path(digest)).write_bytes(b'{"manifests": []}')
    with pytest.raises(Unusable, match="it is damaged"):
        FolderSource(str(bundle / "registry")).manifest(digest)


def test_a_blob_goes_on_where_it_stopped(bundle):
    digest = "sha256:" + maker.sha256(b"layer one")
    with FolderSource(str(bundle / "registry")).blob(digest, 6) as (begin, blocks):
        assert (begin, b"".join(blocks)) == (6, b"one")


# -- copying


def test_a_file_is_linked_only_when_nobody_else_may_write_to_it(tmp_path, monkeypatch):
    monkeypatch.setattr(copying, "_clone", lambda there, here: False)
    source = tmp_path / "source"
    source.write_bytes(b"bytes")
    source.chmod(0o664)
    assert copying.bring(source, tmp_path / "copy") == "copy"
    assert (tmp_path / "copy").read_bytes() == b"bytes"
    source.chmod(0o644)
    assert copying.bring(source, tmp_path / "link") == "link"
    assert (tmp_path / "link").samefile(source)


def test_a_link_is_not_followed(tmp_path):
    (tmp_path / "secret").write_bytes(b"secret")
    (tmp_path / "link").symlink_to(tmp_path / "secret")
    with pytest.raises(OSError, match="no regular file"):
        copying.bring(tmp_path / "link", tmp_path / "target")
    assert not (tmp_path / "target").exists()


def test_bytes_are_counted_once(tmp_path, monkeypatch):
    monkeypatch.setattr(copying, "_clone", lambda there, here: False)
    monkeypatch.setattr(copying, "_link", lambda source, target: False)
    (tmp_path / "source").write_bytes(b"x" * 10_000_000)
    counts: list[int] = []
    assert copying.bring(tmp_path / "source", tmp_path / "target", counts.append) == "copy"
    assert sum(counts) == 10_000_000
    assert (tmp_path / "target").read_bytes() == b"x" * 10_000_000


# -- wheels


@pytest.mark.parametrize(
    ("wheel", "name"),
    [
        ("docker-7.2.0-py3-none-any.whl", "docker"),
        ("prometheus_client-0.26.0-py3-none-any.whl", "prometheus-client"),
        ("PyYAML-6.0-cp312-cp312-manylinux_2_17_aarch64.whl", "pyyaml"),
        ("zope.interface-7-py3-none-any.whl", "zope-interface"),
    ],
)
def test_a_wheel_lies_where_pip_looks_for_it(wheel, name):
    assert packagers.index_name(wheel) == name


# -- looking at one, and serving its wheels


def test_a_look_gives_recipe_lock_and_patches(bundle):
    seen = bundle_info.look(bundle)
    assert seen["bundle"]["recipe"] == "lab"
    held = {path: base64.b64decode(text) for path, text in seen["texts"].items()}
    assert held == {"recipe.yml": b"name: lab\n", "lock.yml": b"version: 1\n", "patches/ab/p.py": b"pass\n"}


def test_a_look_gives_the_hash_of_each_wheel(bundle):
    sha256 = read(bundle).files["simple/docker/docker-7.2.0-py3-none-any.whl"].sha256
    assert bundle_info.look(bundle)["bundle"]["wheels"] == [f"docker==7.2.0 --hash=sha256:{sha256}"]


def test_a_file_that_is_no_wheel_is_told(bundle):
    file = bundle / "bundle.json"
    file.write_text(file.read_text().replace("docker-7.2.0-py3-none-any.whl", "docker.zip"))
    (bundle / "simple/docker/docker-7.2.0-py3-none-any.whl").rename(bundle / "simple/docker/docker.zip")
    with pytest.raises(layout.BundleError, match="expected the name of a wheel"):
        bundle_info.look(bundle)


def test_a_look_finds_a_lock_of_the_same_size_with_other_bytes(bundle):
    (bundle / "lock.yml").write_bytes(b"version: 2\n")
    with pytest.raises(layout.BundleError, match=r"1 damaged: lock.yml: expected sha256"):
        bundle_info.look(bundle)


@pytest.mark.parametrize(
    "path", ["", "bundle.json", "simple/docker", "simple/docker/docker-7.2.0-py3-none-any.whl"]
)
def test_a_bundle_that_others_may_alter_is_not_used(bundle, path):
    (bundle / path).chmod(0o777)
    with pytest.raises(layout.BundleError, match=r"root alone may alter, seen .*writable by everybody"):
        bundle_info.look(bundle)


def test_a_look_names_a_model_that_is_short(bundle):
    (bundle / f"models/lab--body/{maker.COMMIT}/weights/model.safetensors").write_bytes(b"w")
    with pytest.raises(layout.BundleError, match=r"model.safetensors: expected 9000 bytes, seen 1"):
        bundle_info.look(bundle)


@pytest.mark.parametrize(
    "path", ["simple/docker/docker-7.2.0-py3-none-any.whl", "packages/docker-registry_1_arm64.deb"]
)
def test_what_pip_and_apt_would_get_is_verified_first(bundle, path):
    assert bundle_serve.verify(bundle).recipe == "lab"
    (bundle / path).write_bytes(b"x" * (bundle / path).stat().st_size)
    with pytest.raises(layout.BundleError, match=f"1 damaged: {path}: expected sha256"):
        bundle_serve.verify(bundle)


def test_the_server_sees_the_wheels_alone_on_one_address_for_some_time():
    argv = bundle_serve.command(Path("/media/my disk:1/b"), "10.0.0.1", 8618, 60)
    assert r"--property=BindReadOnlyPaths=/media/my\ disk\:1/b/simple:/run/sparkfleet-bundle/simple" in argv
    assert {
        "--property=DynamicUser=yes",
        "--property=RuntimeMaxSec=60",
        "--property=ProtectSystem=strict",
    } <= set(argv)
    server = argv[argv.index("http.server") :]
    assert server == ["http.server", "--bind", "10.0.0.1", "--directory", "/run/sparkfleet-bundle", "8618"]

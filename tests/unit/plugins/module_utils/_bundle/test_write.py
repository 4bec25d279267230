"""Writing a bundle: what is shared, copied, collected, kept and refused."""

from __future__ import annotations

import json
import os
import tarfile
from pathlib import Path

import pytest
from ansible_collections.sparkfleet.vllm.plugins.module_utils._bundle import layout
from ansible_collections.sparkfleet.vllm.plugins.module_utils._bundle import plan as bundle_plan
from ansible_collections.sparkfleet.vllm.plugins.module_utils._bundle import write as bundle_write
from ansible_collections.sparkfleet.vllm.plugins.module_utils._bundle.plan import Options, plan
from ansible_collections.sparkfleet.vllm.plugins.module_utils._common import copying
from ansible_collections.sparkfleet.vllm.plugins.module_utils._common.files import sha256_of
from ansible_collections.sparkfleet.vllm.plugins.module_utils._common.store import StoreError
from ansible_collections.sparkfleet.vllm.plugins.module_utils._images import oci
from ansible_collections.sparkfleet.vllm.plugins.module_utils._models import snapshot as snapshots
from ansible_collections.sparkfleet.vllm.plugins.module_utils._models.compare import scan
from helpers import bundle as maker

BODY_IN_BUNDLE = f"models/lab--body/{maker.COMMIT}"


@pytest.fixture
def lab(tmp_path):
    """Store, folder of the bundle with the image in it, and what it is to hold."""
    store, folder = tmp_path / "store", tmp_path / "bundle"
    maker.fill_store(store)
    digest = maker.fill_registry(folder / "registry")

    class Lab:
        path = folder
        models = Path(store / "models/lab--body") / maker.COMMIT
        wanted = maker.wanted(digest)
        options = Options(folder, str(store))
        collect = maker.Collected()

        def write(self, wanted=None, options=None, now=maker.NOW):
            return bundle_write.write(wanted or self.wanted, options or self.options, self.collect, now)

    return Lab()


@pytest.fixture
def hashed(monkeypatch):
    """The files that were read to be hashed."""
    seen: list[str] = []
    real = sha256_of

    def spy(path, advance=lambda count: None):
        seen.append(Path(path).name)
        return real(path, advance)

    monkeypatch.setattr(snapshots, "sha256_of", spy)
    for reader in (bundle_plan, bundle_write):
        monkeypatch.setattr(reader, "sha256_of", spy)
    return seen


def held(folder):
    bundle = layout.read(folder)
    assert bundle is not None
    return bundle


def test_everything_is_in_it_and_every_file_is_what_bundle_json_says(lab):
    written = lab.write()
    assert written.changed
    bundle = held(lab.path)
    assert (bundle.recipe, bundle.machine, bundle.python, bundle.created) == (
        "lab",
        "aarch64",
        "3.12",
        maker.NOW,
    )
    for path, file in bundle.files.items():
        content = (lab.path / path).read_bytes()
        assert (len(content), maker.sha256(content)) == (file.size, file.sha256), path
    sections = {path.partition("/")[0] for path in bundle.files}
    assert sections == {"recipe.yml", "lock.yml", "patches", "models", "registry", "simple", "packages"}
    on_disk = set(scan(lab.path)) - {".lock", ".verified.json", "bundle.json"}
    assert on_disk == set(bundle.files)
    assert (lab.path / f"{BODY_IN_BUNDLE}/weights/model.safetensors").read_bytes() == b"w" * 9000


def test_models_of_the_same_file_system_are_shared_and_not_read_again(lab, hashed):
    written = lab.write()
    assert (written.linked, written.copied) == (9002, 0)
    assert "model.safetensors" not in hashed


def test_the_stores_stat_cache_still_vouches_for_what_was_linked(lab):
    lab.write()
    snapshot = snapshots.Snapshot(lab.options.store, maker.manifest(), 2, lambda text: None)
    assert snapshot.inspect(full=False, hashing=False)


def test_models_of_another_file_system_are_copied_and_hashed(lab, hashed, monkeypatch):
    monkeypatch.setattr(copying, "_clone", lambda there, here: False)
    monkeypatch.setattr(copying, "_link", lambda source, target: False)
    written = lab.write()
    assert (written.linked, written.copied) == (0, 9002)
    assert len(hashed) >= 3
    store_file = lab.models / "weights/model.safetensors"
    assert not (lab.path / BODY_IN_BUNDLE / "weights/model.safetensors").samefile(store_file)


def test_a_copy_that_is_not_what_was_read_is_refused(lab, monkeypatch):
    def bad(source, target, received=lambda count: None):
        target.write_bytes(b"x" * source.stat().st_size)
        return "copy"

    monkeypatch.setattr(bundle_write, "bring", bad)
    with pytest.raises(layout.BundleError, match=r"expected sha256 .* check the disk of the bundle"):
        lab.write()
    assert not (lab.path / "bundle.json").exists()
    assert not (lab.path / BODY_IN_BUNDLE / "weights/model.safetensors").exists()


def test_a_second_run_changes_reads_and_asks_nothing(lab, hashed):
    lab.write()
    before = {path: status.st_ctime_ns for path, status in scan(lab.path).items() if path != ".lock"}
    hashed.clear()
    again = lab.write(now="2027-01-01T00:00:00Z")
    assert not again.changed
    assert again.bundle.created == maker.NOW
    assert lab.collect.asked == ["simple", "packages"]
    assert hashed == []
    assert {path: status.st_ctime_ns for path, status in scan(lab.path).items() if path != ".lock"} == before


def test_a_file_that_changed_with_its_size_and_time_kept_is_mended(lab):
    lab.write()
    path = lab.path / "patches/ab/p.py"
    status = path.stat()
    path.write_bytes(b"PASS\n")
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
    again = lab.write()
    assert again.changed
    assert path.read_bytes() == b"pass\n"
    assert lab.collect.asked == ["simple", "packages"]


def test_a_lost_wheel_is_collected_again_and_nothing_else(lab):
    lab.write()
    (lab.path / "simple/docker/docker-7.2.0-py3-none-any.whl").unlink()
    lab.write()
    assert lab.collect.asked == ["simple", "packages", "simple"]
    assert layout.damaged_by_size(lab.path, held(lab.path).files.items()) == []


def test_other_requirements_replace_the_wheels(lab):
    lab.write()
    lab.write(maker.wanted(lab.wanted.image.rpartition("@")[2], requirements=("docker==8",)))
    assert lab.collect.asked == ["simple", "packages", "simple"]
    assert held(lab.path).requirements == ("docker==8",)


def test_what_another_lock_no_longer_names_goes(lab):
    lab.write()
    fewer = {path: content for path, content in maker.BODY.items() if path != "empty"}
    lab.write(maker.wanted(lab.wanted.image.rpartition("@")[2], manifests=[maker.manifest(fewer)]))
    assert not (lab.path / BODY_IN_BUNDLE / "empty").exists()
    assert (lab.path / BODY_IN_BUNDLE / "config.json").exists()


def test_a_snapshot_that_is_not_whole_is_refused_and_no_bundle_is_left(lab):
    (lab.models / "config.json").unlink()
    with pytest.raises(layout.BundleError, match="expected a whole snapshot, seen 1 of 3 files missing"):
        lab.write()
    assert not (lab.path / "bundle.json").exists()


def test_a_run_that_was_cut_short_is_taken_up(lab, monkeypatch):
    def full(section, work):
        raise OSError(28, "No space left on device")

    with pytest.raises(OSError):
        bundle_write.write(lab.wanted, lab.options, full, maker.NOW)
    assert not (lab.path / "bundle.json").exists()
    inode = (lab.path / BODY_IN_BUNDLE / "config.json").stat().st_ino
    lab.write()
    assert (lab.path / BODY_IN_BUNDLE / "config.json").stat().st_ino == inode
    assert held(lab.path).files


def test_an_image_that_lost_a_layer_or_a_byte_is_named(lab):
    lab.write()
    (layer,) = [
        lab.path / path
        for path, file in held(lab.path).files.items()
        if path.startswith("registry/") and file.size == 4500
    ]
    layer.write_bytes(b"y" * 4500)
    with pytest.raises(layout.BundleError, match=r"missing or with other bytes .*data"):
        lab.write()
    layer.unlink()
    with pytest.raises(layout.BundleError, match=r"1 of \d+ files missing"):
        lab.write()


def test_an_image_that_was_never_fetched_is_refused_but_for_a_first_look(lab):
    other = maker.wanted("sha256:" + "0" * 64)
    with pytest.raises(layout.BundleError, match="does not hold this image"):
        plan(other, lab.options)
    nowhere = Options(lab.path.with_name("new"), lab.options.store, without_image=True)
    todo = plan(lab.wanted, nowhere)
    assert todo.changed
    assert todo.needed == 9002 + sum(map(len, lab.wanted.texts.values()))
    assert any(line.startswith("models: 3 to write") for line in todo.lines())
    assert not nowhere.folder.exists()


def test_an_image_for_another_platform_is_refused(lab):
    with pytest.raises(
        layout.BundleError, match="expected linux/amd64 in the image's index, seen linux/arm64; lock"
    ):
        plan(maker.wanted(lab.wanted.image.rpartition("@")[2], machine="x86_64"), lab.options)


def test_the_disk_is_asked_first(lab):
    options = Options(lab.path, lab.options.store, reserve=10**18)
    with pytest.raises(StoreError, match="GB free"):
        lab.write(options=options)
    assert not (lab.path / "models").exists()


def test_the_archive_is_the_bundle_and_is_written_once(lab):
    options = Options(lab.path, lab.options.store, archive=True)
    assert lab.write(options=options).changed
    path = bundle_write.archive_path(lab.path)
    with tarfile.open(path) as archive:
        assert {name.removeprefix("bundle/") for name in archive.getnames()} == {
            *held(lab.path).files,
            "bundle.json",
        }
    written = path.stat().st_mtime_ns
    assert not lab.write(options=options).changed
    assert path.stat().st_mtime_ns == written


def test_an_image_tree_of_another_image_is_not_part_of_it(lab):
    maker.fill_registry(lab.path / "registry", (b"of another image",))
    lab.write()
    stray = oci.blob_path("sha256:" + maker.sha256(b"of another image"))
    assert f"registry/{stray}" not in held(lab.path).files


def test_bundle_json_is_the_same_bytes_when_read_and_written(lab):
    lab.write()
    text = (lab.path / "bundle.json").read_text()
    assert layout.parse(text, "x").render() == text
    assert json.loads(text)["version"] == 1


def test_a_bundle_that_is_being_changed_is_none(lab):
    lab.write()

    def down(section, work):
        raise layout.BundleError("no index")

    other = maker.wanted(lab.wanted.image.rpartition("@")[2], requirements=("docker==8",))
    with pytest.raises(layout.BundleError, match="no index"):
        bundle_write.write(other, lab.options, down, maker.NOW)
    with pytest.raises(layout.BundleError, match=r"seen no bundle.json"):
        layout.read(lab.path)

"""What an engine says of a container: its shape, and what docker_container makes of the same."""

from __future__ import annotations

import pytest
from ansible_collections.sparkfleet.vllm.plugins.module_utils._common.inspected import (
    CONTAINER,
    device,
    ulimit,
    unfit,
)
from helpers.drift import running


@pytest.mark.parametrize(
    "over",
    [
        {"HostConfig__Ulimits": "memlock"},
        {"HostConfig__Ulimits": [7]},
        {"HostConfig__Ulimits": [{"Name": "memlock", "Soft": "unlimited"}]},
        {"HostConfig__Devices": [{"PathOnHost": "/dev/x", "CgroupPermissions": 6}]},
    ],
)
def test_an_answer_of_another_form_is_of_no_use(over):
    assert unfit("x", running(), CONTAINER) == ""
    assert f"HostConfig.{next(iter(over)).partition('__')[2]}" in unfit("x", running(**over), CONTAINER)


def test_devices_and_limits_as_docker_container_takes_them():
    asked = {"PathOnHost": "/dev/x", "PathInContainer": "/dev/y", "CgroupPermissions": "rw"}
    assert device(asked) == "/dev/x:/dev/y:rw"
    assert device({"PathOnHost": "/dev/x"}) == "/dev/x:/dev/x:rwm"
    assert ulimit({"Name": "memlock", "Soft": -1, "Hard": -1}) == "memlock:-1:-1"

# Copyright (c) the sparkfleet.vllm authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What must not be shown, by its name and by its look."""

from __future__ import annotations

import pytest
from ansible_collections.sparkfleet.vllm.plugins.module_utils._common.secrets import (
    is_secret,
    is_secret_option,
    mask,
    masked,
)


@pytest.mark.parametrize(
    ("name", "secret"),
    [
        *(
            (name, True)
            for name in ("VLLM_API_KEY", "HF_TOKEN", "aws_secret_access_key", "DB_PASSWD", "PASSPHRASE")
        ),
        *(
            (name, True)
            for name in ("HTTP_AUTH", "AUTH_HEADER", "AUTHORIZATION", "REGISTRY_CREDENTIALS", "SENTRY_DSN")
        ),
        *((name, False) for name in ("AUTHOR", "CUDA_VISIBLE_DEVICES", "HF_HUB_OFFLINE", "HTTPS_PROXY")),
    ],
)
def test_a_variable_is_a_secret_by_its_name(name: str, secret: bool) -> None:
    assert is_secret(name) is secret


@pytest.mark.parametrize(
    ("name", "secret"),
    [
        *((name, True) for name in ("api-key", "hf-token", "ssl-keyfile-password", "otel.secret")),
        *((name, False) for name in ("tokenizer", "max-num-batched-tokens", "ssl-keyfile", "")),
    ],
)
def test_an_option_is_one_by_its_end(name: str, secret: bool) -> None:
    assert is_secret_option(name) is secret


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("nothing to hide", "nothing to hide"),
        ("key-12345678 twice key-12345678", "*** twice ***"),
        ("hf_abcdefghijklmnop", "hf_***"),
        ("HTTPS_PROXY=http://user:pw@proxy:3128/a", "HTTPS_PROXY=http://***@proxy:3128/a"),
        ("redis://:pw@host and https://host/a@b", "redis://***@host and https://host/a@b"),
    ],
)
def test_what_looks_like_a_secret_is_masked(text: str, shown: str) -> None:
    assert mask(text, ["key-12345678"]) == shown


def test_a_result_holds_no_secret_however_deep_and_the_longest_one_is_found_first() -> None:
    result = {
        "msg": "hidden-too and hidden",
        "rows": [{"key": ("hidden", 1)}, None],
        "hidden": True,
    }
    assert masked(result, {"hidden", "hidden-too", ""}) == {
        "msg": "******** and ********",
        "rows": [{"key": ["********", 1]}, None],
        "hidden": True,
    }
    assert masked(result, []) is result

"""Which device a backbone is loaded to, and what is said where there is no such device."""

import pytest
import torch

from snapjudge.errors import InputInvalid
from snapjudge.model.hub import DEVICE, load_backbone
from snapjudge.testing import write_tiny_decoder


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return str(write_tiny_decoder(tmp_path_factory.mktemp("llama"), "llama"))


def test_the_device_is_the_accelerator_where_there_is_one_unless_told_otherwise(folder, monkeypatch):
    monkeypatch.delenv(DEVICE, raising=False)
    assert load_backbone(folder).device.type == ("cuda" if torch.cuda.is_available() else "cpu")
    monkeypatch.setenv(DEVICE, "cpu")
    assert load_backbone(folder).device.type == "cpu"


@pytest.mark.parametrize("name", ["cuda:99", "tpu", "gpu 1"])
def test_a_device_that_is_not_there_is_an_error_that_says_how_to_choose(folder, monkeypatch, name):
    with pytest.raises(InputInvalid, match="no device") as raised:
        load_backbone(folder, device=name)
    assert DEVICE in raised.value.hint
    monkeypatch.setenv(DEVICE, name)
    with pytest.raises(InputInvalid, match="no device"):
        load_backbone(folder)

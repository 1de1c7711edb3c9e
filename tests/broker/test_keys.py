import pytest

from broker import keys
from broker.keys import Keys, model_name, new_request_id, shard_of, shard_tags
from broker.wire import LANES


@pytest.mark.parametrize("shards", [1, 2, 3, 5, 16, 128])
def test_shard_tags_fall_evenly_on_the_slots(shards: int) -> None:
    slots = [keys._crc16(tag.encode()) % keys.SLOTS for tag in shard_tags(shards)]
    assert len(set(shard_tags(shards))) == shards
    if shards > 1:
        assert [slot * shards // keys.SLOTS for slot in slots] == list(range(shards))


def test_the_checksum_is_the_clusters() -> None:
    assert keys._crc16(b"123456789") == 0x31C3  # the example of the cluster specification


@pytest.mark.parametrize("shards", [0, 129])
def test_shards_out_of_range_are_refused(shards: int) -> None:
    with pytest.raises(ValueError, match="between 1 and 128"):
        shard_tags(shards)


def test_a_request_id_carries_its_shard_and_128_random_bits() -> None:
    first, second = new_request_id(2), new_request_id(2)
    assert first != second
    assert len(first) == 34
    assert shard_of(first, 3) == 2
    assert shard_of(first, 2) is None


@pytest.mark.parametrize("text", ["", "x", "0" * 33, "0" * 35, "G" + "0" * 33, "0" * 33 + "\n"])
def test_malformed_ids_belong_to_no_shard(text: str) -> None:
    assert shard_of(text, 1) is None


def test_every_key_of_a_shard_shares_its_hash_tag() -> None:
    shard = Keys("7")
    names = [
        *(shard.queue("m", lane) for lane in LANES),
        *(shard.backlog("m", lane) for lane in LANES),
        shard.request("t", "r"), shard.reply("p"), shard.idempotency("t", "d"), shard.load(),
        shard.model("m"), shard.worker("w"), shard.dead(),
    ]  # fmt: skip
    assert len(set(names)) == len(names)
    assert all(name.startswith("dragoman:{7}:") for name in names)


def test_model_names_are_safe_in_keys(tmp_path) -> None:
    assert model_name("facebook/m2m100_418M") == "facebook/m2m100_418M"
    (tmp_path / "my {model}: 1").mkdir()
    assert model_name(str(tmp_path / "my {model}: 1")) == "my-model-1"

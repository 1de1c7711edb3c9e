import pytest

from inference_worker.engine.continuous.slots import SlotTable
from inference_worker.engine.protocol import Sentence


def sentence(key: int) -> Sentence:
    return Sentence(key, (4, 5), 7)


def test_the_lowest_free_slot_is_taken_first() -> None:
    table = SlotTable(3)
    slots = [table.take(sentence(key), 2, 200) for key in (10, 11, 12)]
    assert [slot.index for slot in slots] == [0, 1, 2]
    assert table.free == 0
    with pytest.raises(IndexError):
        table.take(sentence(13), 2, 200)

    table.release(slots[2])
    table.release(slots[0])

    assert table.take(sentence(14), 2, 200).index == 0
    assert [slot.sentence.key for slot in table.occupied()] == [14, 11]


def test_release_by_key_ignores_strangers() -> None:
    table = SlotTable(2)
    table.take(sentence(1), 2, 200)
    table.release_keys({1, 2})
    assert (len(table), table.free) == (0, 2)

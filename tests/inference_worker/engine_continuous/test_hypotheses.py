from inference_worker.engine.continuous.hypotheses import walk_back


def test_walks_from_the_last_token_to_the_first() -> None:
    tokens = [[10, 11], [20, 21], [30, 31]]
    parents = [[0, 0], [1, 0], [1, 1]]
    # Step 3 continued beam 0, which at step 2 got 30 as a child of beam 1, which got 21 as a
    # child of beam 0, which got 10.
    assert walk_back(tokens, parents, 3, 0, 99) == [10, 21, 30, 99]


def test_a_first_step_has_no_history() -> None:
    assert walk_back([], [], 0, 1, 99) == [99]

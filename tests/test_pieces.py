"""Arithmetic on pieces: what is cut, where it goes, how pieces make a whole, what regions need."""

from __future__ import annotations

import itertools
import json

import numpy as np
import pytest

from notata import assembly
from notata.assembly import Flaw, assemble, flaws, intersection
from notata.errors import PieceError
from notata.pieces import Piece, by_label, cut, halo_slices, placed, ways
from notata.ranges import compact, expand, ranks_text
from notata.regions import region_of


def piece(
    shape: tuple[int, ...],
    *,
    join: str = "concat",
    start: tuple[int, ...] | None = None,
    whole: tuple[int, ...] | None = None,
    dtype: str = "<f8",
    fortran: bool = False,
    name: str = "T",
    key: str | None = None,
) -> Piece:
    file = f"data/{name}.npy" if key is None else f"data/{name}.npz"
    return Piece(name, key, file, join, shape, dtype, fortran, start, whole, 99, 1)


# ----- one piece -----


@pytest.mark.parametrize(
    ("halo", "inner"),
    [
        (0, (5, 6)),
        (1, (3, 4)),
        (np.int64(2), (1, 2)),
        ((1, 0), (3, 6)),
        ([2, 3], (1, 0)),
        (((1, 0), (0, 2)), (4, 4)),
        ((1, (0, 2)), (3, 4)),
        (np.array([1, 2]), (3, 2)),
    ],
)
def test_halo(halo: object, inner: tuple[int, ...]) -> None:
    block = np.arange(30).reshape(5, 6)
    kept = block[halo_slices(block.shape, halo)]  # type: ignore[arg-type]
    assert kept.shape == inner


def test_halo_is_taken_from_the_named_side() -> None:
    assert list(np.arange(5)[halo_slices((5,), ((1, 0),))]) == [1, 2, 3, 4]
    assert list(np.arange(5)[halo_slices((5,), ((0, 1),))]) == [0, 1, 2, 3]


@pytest.mark.parametrize(
    ("halo", "told"),
    [
        ((1,), "for 1 axes"),
        ((1, 1, 1), "for 3 axes"),
        (-1, "axis 0"),
        ((1, (1, 1, 1)), "axis 1"),
        ((1, (1, -1)), "axis 1"),
        (3, "takes 6 cells of axis 0, which has 5"),
        (0.5, "halo=0.5 is no whole number"),
        ((1, 0.5), "halo=0.5 is no whole number"),
    ],
)
def test_a_halo_that_does_not_fit(halo: object, told: str) -> None:
    with pytest.raises(PieceError, match=told):
        halo_slices((5, 6), halo)  # type: ignore[arg-type]


def test_place() -> None:
    assert placed((2,), np.int32(3), 5) == ((3,), (5,))
    assert placed((), (), ()) == ((), ())
    assert placed((2, 3), np.array([1, 2]), np.array([9, 9])) == ((1, 2), (9, 9))
    assert placed((0, 4), (3, 0), (3, 4)) == ((3, 0), (3, 4))


@pytest.mark.parametrize(
    ("start", "whole", "told"),
    [
        ((0, 0), None, "start and shape go together"),
        (None, (5, 5), "start and shape go together"),
        (0, (5, 5), "differ in axes"),
        ((0, 0, 0), (5, 5, 5), "differ in axes"),
        ((-1, 0), (5, 5), "leaves the array"),
        ((4, 0), (5, 5), r"axis 0: 4 \+ 2 > 5"),
        ((0, 3), (5, 5), r"axis 1: 3 \+ 3 > 5"),
        ((0.0, 0), (5, 5), "whole numbers"),
        (0.5, (5, 5), "start=0.5 is no whole number"),
    ],
)
def test_a_place_that_does_not_fit(start: object, whole: object, told: str) -> None:
    with pytest.raises(PieceError, match=told):
        placed((2, 3), start, whole)


def test_cut_leaves_out_the_halo_and_names_the_array_in_errors() -> None:
    block = np.arange(20).reshape(4, 5)
    made = cut("T", block, start=(6, 1), shape=(9, 9), halo=1, join="concat", alone=False)
    np.testing.assert_array_equal(made.array, block[1:-1, 1:-1])
    assert (made.join, made.start, made.whole) == ("place", (6, 1), (9, 9))
    with pytest.raises(PieceError, match="array 'T': join='sum'"):
        cut("T", block, start=None, shape=None, halo=0, join="sum", alone=False)
    with pytest.raises(PieceError, match="array 'T': a piece"):
        cut("T", block, start=(9, 9), shape=(9, 9), halo=0, join="concat", alone=False)


@pytest.mark.parametrize(
    "given",
    [
        piece((2, 3)),
        piece((2, 3), join="place", start=(4, 0), whole=(6, 3), fortran=True, name="a/b"),
        piece((), join="stack", dtype='[["x", "<f4"]]', key="k:1"),
    ],
)
def test_a_manifest_line_is_read_back(given: Piece) -> None:
    line = given.line()
    assert line.endswith(b"}\n")
    assert line.count(b"\n") == 1
    assert Piece.from_line(line) == given


@pytest.mark.parametrize("line", [b"", b"{", b"[]", b"{}", b"null", piece((1,)).line()[:-9]])
def test_a_line_that_is_none(line: bytes) -> None:
    with pytest.raises(ValueError):  # noqa: PT011 - json has its own words
        Piece.from_line(line)


@pytest.mark.parametrize(
    ("fields", "told"),
    [
        ({"join": "sum"}, "join 'sum' is none of 'concat', 'stack', 'none', 'place'"),
        ({"join": None}, "join None is none"),
        ({"join": "place"}, "start and shape go together"),
        ({"join": "place", "start": [1], "whole": [9, 9]}, "differ in axes"),
        ({"join": "place", "start": [8], "whole": [9]}, "leaves the array"),
    ],
)
def test_a_line_that_says_what_can_not_be(fields: dict[str, object], told: str) -> None:
    line = json.dumps(json.loads(piece((2,)).line()) | fields).encode()
    with pytest.raises(ValueError, match=told):
        Piece.from_line(line)


def test_a_line_with_more_fields_is_still_read() -> None:
    fields = json.loads(piece((2,)).line()) | {"added_later": 1}
    assert Piece.from_line(json.dumps(fields).encode()) == piece((2,))


# ----- many pieces -----


def test_concat_follows_the_ranks() -> None:
    whole = assemble({2: [piece((4, 2))], 0: [piece((3, 2))], 1: [piece((0, 2))]}, 4)[("T", None)]
    assert (whole.shape, whole.problems) == ((7, 2), ())
    assert [(p.rank, p.start, p.shape) for p in whole.parts] == [
        (0, (0, 0), (3, 2)),
        (1, (3, 0), (0, 2)),
        (2, (3, 0), (4, 2)),
    ]


def test_numbers_become_a_vector_over_ranks() -> None:
    whole = assemble({r: [piece(())] for r in range(3)}, 3)[("T", None)]
    assert whole.shape == (3,)
    assert [p.start for p in whole.parts] == [(0,), (1,), (2,)]


def test_stack_has_a_row_a_rank_and_needs_them_all() -> None:
    pieces = {r: [piece((2, 5), join="stack")] for r in range(3)}
    assert assemble(pieces, 3)[("T", None)].shape == (3, 2, 5)
    (problem,) = assemble(pieces, 5)[("T", None)].problems
    assert "ranks 3-4 wrote none" in problem


def test_place_keeps_start_and_shape() -> None:
    whole = assemble(
        {
            0: [piece((2, 3), join="place", start=(0, 0), whole=(4, 3))],
            3: [piece((2, 3), join="place", start=(2, 0), whole=(4, 3))],
        },
        4,
    )[("T", None)]
    assert whole.shape == (4, 3)
    assert [(p.rank, p.start) for p in whole.parts] == [(0, (0, 0)), (3, (2, 0))]


def test_pieces_that_are_kept_apart_make_no_whole() -> None:
    assert assemble({0: [piece((2,), join="none")], 1: [piece((3,), join="none")]}, 2) == {}


def test_the_last_piece_of_a_name_counts() -> None:
    whole = assemble({0: [piece((2,)), piece((5,))]}, 1)[("T", None)]
    assert whole.shape == (5,)


def test_keys_of_a_bundle_are_arrays_of_their_own() -> None:
    wholes = assemble({0: [piece((2,), key="x"), piece((3,), key="v"), piece((4,))]}, 1)
    assert {identity: whole.shape for identity, whole in wholes.items()} == {
        ("T", None): (4,),
        ("T", "v"): (3,),
        ("T", "x"): (2,),
    }


def test_arrays_that_share_a_label_are_two_and_the_array_goes_before_a_bundle_s_key() -> None:
    shared = [
        piece((3,), name="a:b", key="c"),
        piece((1,), name="a:b:c"),
        piece((2,), name="a", key="b:c"),
    ]
    wholes = assemble({0: shared}, 1)
    assert [(identity, whole.shape) for identity, whole in wholes.items()] == [
        (("a:b:c", None), (1,)),
        (("a", "b:c"), (2,)),
        (("a:b", "c"), (3,)),
    ]
    assert {whole.label for whole in wholes.values()} == {"a:b:c"}
    assert list(wholes) == list(ways("a:b:c"))
    backwards = dict(reversed(wholes.items()))
    assert by_label(backwards) == {"a:b:c": wholes["a:b:c", None]}
    del backwards["a:b:c", None]
    assert by_label(backwards) == {"a:b:c": wholes["a", "b:c"]}


EMPTY = piece((0,), dtype="<f8")  # what `np.array([])` is


@pytest.mark.parametrize(
    "empty", [EMPTY, piece((0, 7), dtype="|b1"), piece((0, 2, 0), dtype="<M8[s]")]
)
@pytest.mark.parametrize("rank", [0, 1, 2])
def test_a_piece_without_rows_fits_any_others(empty: Piece, rank: int) -> None:
    pieces = {r: [piece((2, 3), dtype="<i8", fortran=True)] for r in range(3)} | {rank: [empty]}
    whole = assemble(pieces, 3)[("T", None)]
    assert (whole.problems, whole.shape, whole.dtype, whole.fortran) == ((), (4, 3), "<i8", True)
    assert [part.rank for part in whole.parts] == [0, 1, 2]
    assert whole.parts[rank].shape == (0, 3)
    assert {part.piece for part in whole.parts} == {empty, pieces[(rank + 1) % 3][0]}


def test_a_placed_piece_without_elements_says_nothing_of_the_type() -> None:
    pieces = {
        0: [piece((0,), join="place", start=(0,), whole=(4,))],
        1: [piece((4,), join="place", start=(0,), whole=(4,), dtype="<i4")],
    }
    whole = assemble(pieces, 2)[("T", None)]
    assert (whole.problems, whole.shape, whole.dtype) == ((), (4,), "<i4")
    pieces[0] = [piece((0,), join="place", start=(0,), whole=(5,))]
    (problem,) = assemble(pieces, 2)[("T", None)].problems
    assert problem == "is part of a whole of shape (5,) on rank 0, (4,) on rank 1"


@pytest.mark.parametrize(
    ("others", "told"),
    [
        (piece((0,), dtype="<i8"), "has type <f8 on rank 0, <i8 on rank 1"),
        (piece((0, 3)), "beyond axis 0 has shape () on rank 0, (3,) on rank 1"),
        (piece(()), "beyond axis 0 has shape () on rank 0, None on rank 1"),
        (piece((2,), join="stack"), "is joined by concat on rank 0, stack on rank 1"),
    ],
)
def test_what_a_piece_without_elements_has_to_agree_on(others: Piece, told: str) -> None:
    (problem,) = assemble({0: [EMPTY], 1: [others]}, 2)[("T", None)].problems
    assert problem == told


def test_rows_without_columns_are_rows_that_the_others_have_to_fit() -> None:
    whole = assemble({0: [piece((3, 0))], 1: [piece((2, 4))]}, 2)[("T", None)]
    assert whole.problems == ("beyond axis 0 has shape (0,) on rank 0, (4,) on rank 1",)
    whole = assemble({0: [piece((3, 0))], 1: [piece((2, 0))]}, 2)[("T", None)]
    assert (whole.problems, whole.shape) == ((), (5, 0))


@pytest.mark.parametrize(
    ("others", "told"),
    [
        (piece((2, 3), dtype="<f4"), "has type <f8 on rank 0, <f4 on ranks 1-2"),
        (piece((2, 3), join="stack"), "is joined by concat on rank 0, stack on ranks 1-2"),
        (piece((2, 4)), r"beyond axis 0 has shape \(3,\) on rank 0, \(4,\) on ranks 1-2"),
        (piece(()), r"beyond axis 0 has shape \(3,\) on rank 0, None on ranks 1-2"),
    ],
)
def test_what_ranks_disagree_on_is_named(others: Piece, told: str) -> None:
    whole = assemble({0: [piece((2, 3))], 1: [others], 2: [others]}, 3)[("T", None)]
    assert len(whole.problems) == 1
    with pytest.raises(AssertionError, match=told):
        raise AssertionError(whole.problems[0])


def test_ranks_that_disagree_on_the_shape_of_the_whole() -> None:
    pieces = {
        r: [piece((2,), join="place", start=(0,), whole=(n,))] for r, n in enumerate((4, 4, 5))
    }
    assert assemble(pieces, 3)[("T", None)].problems == (
        "is part of a whole of shape (4,) on ranks 0-1, (5,) on rank 2",
    )


def test_only_pieces_that_all_lie_in_fortran_order_make_such_a_whole() -> None:
    both = {0: [piece((2, 2), fortran=True)], 1: [piece((2, 2), fortran=True)]}
    assert assemble(both, 2)[("T", None)].fortran
    assert not assemble(both | {1: [piece((2, 2))]}, 2)[("T", None)].fortran


# ----- gaps and overlaps -----


def test_an_exact_cover_has_no_flaws() -> None:
    boxes = {
        i: (start, (2, 2)) for i, start in enumerate(itertools.product(range(0, 8, 2), repeat=2))
    }
    assert flaws((8, 8), boxes) == []


def test_a_gap_is_found_where_it_is() -> None:
    boxes = {0: ((0, 0), (2, 4)), 1: ((2, 0), (2, 3))}
    (found,) = flaws((4, 4), boxes)
    assert found == Flaw((2, 3), (2, 1), ())
    assert str(found) == "nothing covers [2:4, 3:4]"


def test_an_overlap_is_found_with_its_ranks() -> None:
    (found,) = flaws((6,), {0: ((0,), (4,)), 5: ((3,), (3,))})
    assert found == Flaw((3,), (1,), (0, 5))
    assert str(found) == "ranks 0, 5 overlap at [3:4]"


def test_a_gap_and_an_overlap_of_the_same_size_do_not_cancel() -> None:
    boxes = {0: ((0,), (3,)), 1: ((2,), (2,)), 2: ((5,), (1,))}
    assert [str(f) for f in flaws((6,), boxes)] == [
        "ranks 0-1 overlap at [2:3]",
        "nothing covers [4:5]",
    ]


def test_empty_boxes_and_empty_wholes() -> None:
    assert flaws((4,), {0: ((0,), (4,)), 1: ((2,), (0,))}) == []
    assert flaws((4, 0), {}) == []
    assert flaws((4,), {}) == [Flaw((0,), (4,), ())]
    assert flaws((), {0: ((), ())}) == []


def test_no_more_flaws_than_asked_for() -> None:
    boxes = {i: ((2 * i,), (1,)) for i in range(50)}
    assert len(flaws((100,), boxes, most=3)) == 3


@pytest.mark.parametrize(
    ("boxes", "wrong"),
    [
        ({0: ((0, 0), (2, 4)), 1: ((2, 0), (2, 4))}, None),
        ({0: ((0, 0), (2, 4)), 1: ((2, 0), (2, 3))}, "nothing covers"),
        ({0: ((0, 0), (3, 4)), 1: ((2, 0), (2, 4))}, "ranks 0-1 overlap at [2:3, 0:4]"),
    ],
)
def test_boxes_without_a_pattern_are_checked_too(
    monkeypatch: pytest.MonkeyPatch, boxes: dict[int, assembly.Box], wrong: str | None
) -> None:
    monkeypatch.setattr(assembly, "_CELLS", 0)
    found = flaws((4, 4), boxes)
    assert [str(f).startswith(wrong or "") for f in found] == [True] * (wrong is not None)


def test_intersection() -> None:
    assert intersection(((0,), (4,)), ((2,), (9,))) == ((2,), (2,))
    assert intersection(((0,), (4,)), ((4,), (1,))) is None
    assert intersection(((0, 0), (4, 4)), ((1, 2), (0, 1))) is None
    assert intersection(((), ()), ((), ())) == ((), ())


# ----- regions -----

INDICES_2D = [
    None,
    np.s_[2],
    np.s_[-1],
    np.s_[1:3],
    np.s_[1:3, 2],
    np.s_[:, -2:],
    np.s_[::-1, ::2],
    np.s_[4:1:-2, 5:0:-3],
    np.s_[..., 1],
    np.s_[1, ...],
    np.s_[...],
    np.s_[2, 3],
    np.s_[9:, :],
    np.s_[3:3],
    np.s_[:100, -100:],
    (np.int64(1), slice(np.int32(0), np.int64(2))),
]


@pytest.mark.parametrize("index", INDICES_2D, ids=str)
def test_the_box_of_a_region_holds_it(index: object) -> None:
    whole = np.arange(42).reshape(6, 7)
    box = region_of(index, whole.shape)
    cells = whole[tuple(slice(a, a + n) for a, n in zip(box.start, box.shape, strict=True))]
    assert cells.shape == box.shape
    expected = whole if index is None else whole[index]  # type: ignore[index]
    np.testing.assert_array_equal(cells[box.pick], expected)


def test_the_box_is_the_smallest() -> None:
    assert region_of(np.s_[10:20, 3], (30, 5))[:2] == ((10, 3), (10, 1))
    assert region_of(np.s_[1:20:5], (30,))[:2] == ((1,), (16,))
    assert region_of(np.s_[20:1:-5], (30,))[:2] == ((5,), (16,))


@pytest.mark.parametrize(
    ("index", "error"),
    [
        (np.s_[6], IndexError),
        (np.s_[-7], IndexError),
        (np.s_[0, 0, 0], IndexError),
        (np.s_[..., ...], IndexError),
        ([0, 1], TypeError),
        (np.array([True] * 6), TypeError),
        (True, TypeError),
        ((None,), TypeError),
        (1.0, TypeError),
    ],
)
def test_indices_that_are_no_region(index: object, error: type[Exception]) -> None:
    with pytest.raises(error):
        region_of(index, (6, 7))


# ----- ranks as text -----


@pytest.mark.parametrize(
    ("ranks", "text"), [([], ""), ([3], "3"), ([3, 0, 1], "0-1,3"), (range(10000), "0-9999")]
)
def test_ranks_as_text(ranks: list[int], text: str) -> None:
    assert compact(ranks) == text
    assert expand(text) == sorted(ranks)


def test_ranks_in_a_sentence() -> None:
    assert ranks_text([7]) == "rank 7"
    assert ranks_text([1, 2, 7]) == "ranks 1-2, 7"

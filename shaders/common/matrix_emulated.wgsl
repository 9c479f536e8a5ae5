// common/matrix.wgsl and common/matrix_8x8.wgsl in plain WGSL, so that an adapter without
// cooperative matrices can check everything around them. It is slow.
// A matrix is represented by its first term and its first row or column, since its memory does not
// change until it is multiplied. The sums of a matrix are spread over the invocations as vec4s, row
// by row: an invocation has `first`, and `second` if a matrix has more vec4s than the subgroup
// invocations. Nothing depends on the adapter's subgroups.
alias RowMatrix = vec2<u32>;
alias ColumnMatrix = vec2<u32>;

// Number of invocations of an emulated subgroup: the workgroup has 4 blocks of rows, a subgroup
// BLOCKS of them.
override LANES: u32 = SIZE * BLOCKS / 4u;

struct Sums {
    first: vec4<f32>,
    second: vec4<f32>,
}

// The place of an invocation in its workgroup.
struct Place {
    @builtin(local_invocation_index) local: u32,
}

fn subgroup_of(place: Place) -> u32 {
    return place.local / LANES;
}

fn subgroups_of(place: Place) -> u32 {
    return SIZE / LANES;
}

fn lane_of(place: Place) -> u32 {
    return place.local % LANES;
}

fn rows_at(line: u32, row: u32) -> RowMatrix {
    return vec2<u32>(line, row);
}

fn columns_at(line: u32, column: u32) -> ColumnMatrix {
    return vec2<u32>(line, column);
}

// Vec4s in a row of a matrix, and in all of it.
const ACROSS = SIDE / 4u;
const VECTORS = SIDE * ACROSS;

// Invocations past the vec4s of a small matrix do the work of others once more.
fn add_product(rows: RowMatrix, columns: ColumnMatrix, sums: Sums, lane: u32) -> Sums {
    var updated = sums;
    let row = rows.y + lane % VECTORS / ACROSS;
    let column = columns.y + lane % ACROSS * 4u;
    // SIDE, but no constant: unrolled loops would take minutes to compile.
    let terms = min(SIDE, SIDE * p.slices);
    for (var i = 0u; i < terms; i++) {
        let four = four_columns_at(columns.x + i, column);
        updated.first += row_at(rows.x + i, row) * four;
        if LANES < VECTORS {
            updated.second += row_at(rows.x + i, row + LANES / ACROSS) * four;
        }
    }
    return updated;
}

fn put_sums(sums: Sums, row: u32, column: u32, lane: u32) {
    let at = row + lane % VECTORS / ACROSS;
    put_four_sums(at, column + lane % ACROSS * 4u, sums.first);
    if LANES < VECTORS {
        put_four_sums(at + LANES / ACROSS, column + lane % ACROSS * 4u, sums.second);
    }
}

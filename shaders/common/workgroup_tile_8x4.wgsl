// common/workgroup_tile.wgsl with fewer sums for each invocation, for GPUs with few registers
// (Intel): a tile of 64 rows by 4*COLUMNS columns, summed by a workgroup of 128 invocations. 32
// terms of the sum are in workgroup memory at a time. An invocation sums 8 by 4 elements, in narrow
// tiles 4 by 4, with 16 columns over half of the terms.

const SIZE: u32 = 128u;
const ROWS: u32 = 64u;
// Terms of the sum in workgroup memory at a time.
const DEPTH: u32 = 32u;
// Vec4s of columns in the tile: 4, 8 or 16.
override COLUMNS: u32 = 16u;

// For each term the tile's rows and columns as 16 vec4s.
var<workgroup> row_tile: array<array<vec4<f32>, 16>, 32>;
var<workgroup> column_tile: array<array<vec4<f32>, 16>, 32>;

// sumR: its column i is row i of the invocation's row group R, and holds the four columns of its
// column group.
var<private> sum0: mat4x4<f32>;
var<private> sum1: mat4x4<f32>;

// The first row within the tile that an invocation loads.
fn row_of(local: u32) -> u32 {
    return local % 16u * 4u;
}

// The first column within the tile that an invocation loads. Beyond the columns of a narrow tile
// the loaded values are not used.
fn column_of(local: u32) -> u32 {
    return local % 16u * 4u;
}

// The first term, of DEPTH, of the rows and of the columns that an invocation loads.
fn row_step_of(local: u32) -> u32 {
    return local / 16u * 4u;
}

fn column_step_of(local: u32) -> u32 {
    return local / 16u * 4u;
}

// a bᵀ
fn outer(a: vec4<f32>, b: vec4<f32>) -> mat4x4<f32> {
    return mat4x4<f32>(a * b.x, a * b.y, a * b.z, a * b.w);
}

// The first row group of an invocation. A wide tile has a second one, 8 further on.
fn group_of(local: u32) -> u32 {
    return local / COLUMNS % 16u;
}

// Adds DEPTH terms to the tile. Each invocation contributes four of them: column j of `columns` and
// of `rows` holds the four columns and rows that it loaded for term j.
fn add_products(columns: mat4x4<f32>, rows: mat4x4<f32>, place: Place) {
    let local = place.local;
    let term = row_step_of(local);
    let at = local % 16u;
    workgroupBarrier();
    row_tile[term][at] = rows[0];
    row_tile[term + 1u][at] = rows[1];
    row_tile[term + 2u][at] = rows[2];
    row_tile[term + 3u][at] = rows[3];
    column_tile[term][at] = columns[0];
    column_tile[term + 1u][at] = columns[1];
    column_tile[term + 2u][at] = columns[2];
    column_tile[term + 3u][at] = columns[3];
    workgroupBarrier();
    let r = group_of(local);
    let c = local % COLUMNS;
    // With 16 columns the second 64 invocations sum the second half of the terms.
    let first = select(0u, local / 64u * 16u, COLUMNS == 4u);
    let count = select(DEPTH, 16u, COLUMNS == 4u);
    // One term at a time: in unrolled loops loads of several terms would need more registers.
    for (var i = first; i < first + count; i++) {
        let column = column_tile[i][c];
        sum0 += outer(column, row_tile[i][r]);
        if COLUMNS > 8u {
            sum1 += outer(column, row_tile[i][r + 8u]);
        }
    }
}

// The sum of `added` over the invocations that load the same rows or columns, for the first 16
// invocations. All invocations of the workgroup must call it.
fn sum_of_loads(added: vec4<f32>, local: u32) -> vec4<f32> {
    let at = local % 16u;
    workgroupBarrier();
    column_tile[local / 16u][at] = added;
    workgroupBarrier();
    let a = column_tile[0][at] + column_tile[1][at];
    let b = column_tile[2][at] + column_tile[3][at];
    let c = column_tile[4][at] + column_tile[5][at];
    let d = column_tile[6][at] + column_tile[7][at];
    return (a + b) + (c + d);
}

// The first column within the tile whose bias an invocation loads.
fn bias_column_of(local: u32) -> u32 {
    return local % 16u * 4u;
}

// Adds the bias of four columns to every row. Each invocation has those from bias_column_of on.
fn add_to_rows(columns: vec4<f32>, local: u32) {
    if local < 16u {
        column_tile[0][local] = columns;
    }
    workgroupBarrier();
    // With 16 columns only one of the two halves of the sum has the bias.
    if COLUMNS > 4u || local < 64u {
        sum0 = outer(column_tile[0][local % COLUMNS], vec4<f32>(1.0));
        sum1 = sum0;
    }
}

// Stores the tile whose first row and column are given. All invocations of the workgroup must call
// it.
fn store_tile(row: u32, column: u32, place: Place) {
    let local = place.local;
    let r = group_of(local);
    let c = local % COLUMNS;
    if COLUMNS == 4u {
        // Adds the two halves of the terms.
        workgroupBarrier();
        if local >= 64u {
            row_tile[4u * c][r] = sum0[0];
            row_tile[4u * c + 1u][r] = sum0[1];
            row_tile[4u * c + 2u][r] = sum0[2];
            row_tile[4u * c + 3u][r] = sum0[3];
        }
        workgroupBarrier();
        let at = 4u * c;
        sum0 += mat4x4<f32>(
            row_tile[at][r],
            row_tile[at + 1u][r],
            row_tile[at + 2u][r],
            row_tile[at + 3u][r],
        );
    }
    if local < 16u * COLUMNS {
        store_rows(row + 4u * r, column + 4u * c, sum0);
    }
    if COLUMNS > 8u {
        store_rows(row + 4u * r + 32u, column + 4u * c, sum1);
    }
}

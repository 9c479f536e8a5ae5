// A tile of a matrix product: 64 rows by 4*COLUMNS columns, summed by a workgroup of 64
// invocations. 16 terms of the sum are in workgroup memory at a time, where every value serves a
// whole row or column of the tile. An invocation sums 8 by 8 elements, in narrow tiles 4 by 8 or 4
// by 4.

const SIZE: u32 = 64u;
const ROWS: u32 = 64u;
// Terms of the sum in workgroup memory at a time.
const DEPTH: u32 = 16u;
// Vec4s of columns in the tile: 4, 8 or 16.
override COLUMNS: u32 = 16u;

// Rows or columns of the tile for four terms, as vec4s. With the padding, vec4s of the same rows
// lie in different memory banks.
struct Quad {
    term: array<array<vec4<f32>, 16>, 4>,
    padding: array<vec4<f32>, 2>,
}

// The tile's rows and columns for 4 by 4 terms. They are arrays of arrays: naga clamps every index,
// and the clamp of an invocation's place does not depend on the term, so that compilers move it out
// of the loop. A constant index needs no clamp.
var<workgroup> row_tile: array<Quad, 4>;
var<workgroup> column_tile: array<Quad, 4>;

// sumRC: its column i is row i of the invocation's row group R, and holds the four columns of its
// column group C.
var<private> sum00: mat4x4<f32>;
var<private> sum01: mat4x4<f32>;
var<private> sum10: mat4x4<f32>;
var<private> sum11: mat4x4<f32>;

// The first row within the tile that an invocation loads, and the first term, of DEPTH. Consecutive
// invocations load what is contiguous in memory: with ROWS_BY_TERM terms, else rows.
fn row_of(local: u32) -> u32 {
    return select(local % 16u, local / 4u, ROWS_BY_TERM) * 4u;
}

fn row_step_of(local: u32) -> u32 {
    return select(local / 16u, local % 4u, ROWS_BY_TERM) * 4u;
}

// The same for columns. Beyond the columns of a narrow tile the loaded values are not used.
fn column_of(local: u32) -> u32 {
    return select(local % 16u, local / 4u, COLUMNS_BY_TERM) * 4u;
}

fn column_step_of(local: u32) -> u32 {
    return select(local / 16u, local % 4u, COLUMNS_BY_TERM) * 4u;
}

// a bᵀ
fn outer(a: vec4<f32>, b: vec4<f32>) -> mat4x4<f32> {
    return mat4x4<f32>(a * b.x, a * b.y, a * b.z, a * b.w);
}

// Number of invocations along the columns of the tile.
fn across() -> u32 {
    return select(4u, COLUMNS / 2u, COLUMNS > 4u);
}

// Adds four rows and columns of the tile, for one term, to the sums of an invocation.
fn add_term(column0: vec4<f32>, column1: vec4<f32>, row0: vec4<f32>, row1: vec4<f32>) {
    sum00 += outer(column0, row0);
    if COLUMNS > 4u {
        sum01 += outer(column1, row0);
    }
    if COLUMNS > 8u {
        sum10 += outer(column0, row1);
        sum11 += outer(column1, row1);
    }
}

// Adds DEPTH terms to the tile. Each invocation contributes four of them: column j of `columns` and
// of `rows` holds the four columns and rows that it loaded for term j.
fn add_products(columns: mat4x4<f32>, rows: mat4x4<f32>, place: Place) {
    let local = place.local;
    let row = row_of(local) / 4u;
    let column = column_of(local) / 4u;
    let taken_rows = &row_tile[row_step_of(local) / 4u].term;
    let taken_columns = &column_tile[column_step_of(local) / 4u].term;
    workgroupBarrier();
    taken_rows[0][row] = rows[0];
    taken_rows[1][row] = rows[1];
    taken_rows[2][row] = rows[2];
    taken_rows[3][row] = rows[3];
    taken_columns[0][column] = columns[0];
    taken_columns[1][column] = columns[1];
    taken_columns[2][column] = columns[2];
    taken_columns[3][column] = columns[3];
    workgroupBarrier();
    // The places of the invocation's rows and columns. A narrow tile has no second ones.
    let r0 = local / across();
    let r1 = r0 + select(0u, 8u, COLUMNS > 8u);
    let c0 = local % across();
    let c1 = c0 + select(0u, COLUMNS / 2u, COLUMNS > 4u);
    // Four terms in a row: the loads of a term overlap the sums of the one before it.
    for (var i = 0u; i < 4u; i++) {
        let columns_at = &column_tile[i].term;
        let rows_at = &row_tile[i].term;
        add_term(columns_at[0][c0], columns_at[0][c1], rows_at[0][r0], rows_at[0][r1]);
        add_term(columns_at[1][c0], columns_at[1][c1], rows_at[1][r0], rows_at[1][r1]);
        add_term(columns_at[2][c0], columns_at[2][c1], rows_at[2][r0], rows_at[2][r1]);
        add_term(columns_at[3][c0], columns_at[3][c1], rows_at[3][r0], rows_at[3][r1]);
    }
}

// The sum of `added` over the invocations that load the same rows or columns, for the first 16
// invocations. Not for rows or columns by term. All invocations of the workgroup must call it.
fn sum_of_loads(added: vec4<f32>, local: u32) -> vec4<f32> {
    let place = local % 16u;
    workgroupBarrier();
    column_tile[local / 16u].term[0][place] = added;
    workgroupBarrier();
    let a = column_tile[0].term[0][place] + column_tile[1].term[0][place];
    let b = column_tile[2].term[0][place] + column_tile[3].term[0][place];
    return a + b;
}

// The first column within the tile whose bias an invocation loads.
fn bias_column_of(local: u32) -> u32 {
    return local % 16u * 4u;
}

// Adds the bias of four columns to every row. Each invocation has those from bias_column_of on.
fn add_to_rows(columns: vec4<f32>, local: u32) {
    let bias = &column_tile[0].term[0];
    if local < 16u {
        bias[local] = columns;
    }
    workgroupBarrier();
    let along = local % across();
    sum00 += outer(bias[along], vec4<f32>(1.0));
    sum01 += outer(bias[along + COLUMNS / 2u], vec4<f32>(1.0));
    sum10 = sum00;
    sum11 = sum01;
}

// Stores the tile whose first row and column are given.
fn store_tile(row: u32, column: u32, place: Place) {
    let local = place.local;
    let down = row + local / across() * 4u;
    let along = column + local % across() * 4u;
    store_rows(down, along, sum00);
    if COLUMNS > 4u {
        store_rows(down, along + 2u * COLUMNS, sum01);
    }
    if COLUMNS > 8u {
        store_rows(down + 32u, along, sum10);
        store_rows(down + 32u, along + 2u * COLUMNS, sum11);
    }
}

// A tile of a matrix product with few rows and columns: 32 rows by 4*COLUMNS columns, summed by a
// workgroup of 64 invocations. It has half of the rows of workgroup_tile, and therefore memory for
// twice the terms of the sum: 32 at a time, in half of the iterations. An invocation sums 4 by 4
// elements, with 16 columns over half of the terms.

const SIZE: u32 = 64u;
const ROWS: u32 = 32u;
// Terms of the sum in workgroup memory at a time.
const DEPTH: u32 = 32u;
// Vec4s of columns in the tile: 4 or 8.
override COLUMNS: u32 = 8u;

// For each of 8 by 4 terms the tile's rows and columns as 8 vec4s. For the arrays of arrays see
// workgroup_tile.
var<workgroup> row_tile: array<array<array<vec4<f32>, 8>, 4>, 8>;
var<workgroup> column_tile: array<array<array<vec4<f32>, 8>, 4>, 8>;

// Column i is row i of the invocation's row group, and holds the four columns of its column group.
var<private> sum: mat4x4<f32>;

// The first row within the tile that an invocation loads.
fn row_of(local: u32) -> u32 {
    return local % 8u * 4u;
}

// The first column within the tile that an invocation loads. Beyond the columns of a narrow tile
// the loaded values are not used.
fn column_of(local: u32) -> u32 {
    return local % 8u * 4u;
}

// The first term, of DEPTH, of the rows and of the columns that an invocation loads.
fn row_step_of(local: u32) -> u32 {
    return local / 8u * 4u;
}

fn column_step_of(local: u32) -> u32 {
    return local / 8u * 4u;
}

// a bᵀ
fn outer(a: vec4<f32>, b: vec4<f32>) -> mat4x4<f32> {
    return mat4x4<f32>(a * b.x, a * b.y, a * b.z, a * b.w);
}

// Adds DEPTH terms to the tile. Each invocation contributes four of them: column j of `columns` and
// of `rows` holds the four columns and rows that it loaded for term j.
fn add_products(columns: mat4x4<f32>, rows: mat4x4<f32>, place: Place) {
    let local = place.local;
    let quad = local / 8u;
    let at = local % 8u;
    workgroupBarrier();
    row_tile[quad][0][at] = rows[0];
    row_tile[quad][1][at] = rows[1];
    row_tile[quad][2][at] = rows[2];
    row_tile[quad][3][at] = rows[3];
    column_tile[quad][0][at] = columns[0];
    column_tile[quad][1][at] = columns[1];
    column_tile[quad][2][at] = columns[2];
    column_tile[quad][3][at] = columns[3];
    workgroupBarrier();
    let r = local / COLUMNS % 8u;
    let c = local % COLUMNS;
    // With 16 columns the second 32 invocations sum the second half of the terms.
    let first = select(0u, local / 32u * 4u, COLUMNS == 4u);
    for (var i = 0u; i < COLUMNS; i++) {
        let columns_at = &column_tile[first + i];
        let rows_at = &row_tile[first + i];
        sum += outer(columns_at[0][c], rows_at[0][r]);
        sum += outer(columns_at[1][c], rows_at[1][r]);
        sum += outer(columns_at[2][c], rows_at[2][r]);
        sum += outer(columns_at[3][c], rows_at[3][r]);
    }
}

// The sum of `added` over the invocations that load the same rows or columns, for the first 8
// invocations. All invocations of the workgroup must call it.
fn sum_of_loads(added: vec4<f32>, local: u32) -> vec4<f32> {
    let place = local % 8u;
    workgroupBarrier();
    column_tile[local / 8u][0][place] = added;
    workgroupBarrier();
    let a = column_tile[0][0][place] + column_tile[1][0][place];
    let b = column_tile[2][0][place] + column_tile[3][0][place];
    let c = column_tile[4][0][place] + column_tile[5][0][place];
    let d = column_tile[6][0][place] + column_tile[7][0][place];
    return (a + b) + (c + d);
}

// Stores the tile whose first row and column are given. All invocations of the workgroup must call
// it.
fn store_tile(row: u32, column: u32, place: Place) {
    let local = place.local;
    let r = local / COLUMNS % 8u;
    let c = local % COLUMNS;
    if COLUMNS == 4u {
        // Adds the two halves of the terms.
        workgroupBarrier();
        if local >= 32u {
            row_tile[r][0][c] = sum[0];
            row_tile[r][1][c] = sum[1];
            row_tile[r][2][c] = sum[2];
            row_tile[r][3][c] = sum[3];
        }
        workgroupBarrier();
        let rest = &row_tile[r];
        sum += mat4x4<f32>(rest[0][c], rest[1][c], rest[2][c], rest[3][c]);
    }
    if local < 8u * COLUMNS {
        store_rows(row + 4u * r, column + 4u * c, sum);
    }
}

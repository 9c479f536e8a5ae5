// A tile of a matrix product: 32 rows by 4*COLUMNS columns, summed by a subgroup of at least 8
// invocations. An invocation holds 4 rows and all columns.
// A term of the sum is an outer product. Every invocation loads its own rows. Each of 8 invocations
// loads 4 of the columns, and all others get them by subgroup broadcast. A load from memory then
// serves 8 times as many products as one that each invocation makes for itself.

const SIZE: u32 = 8u;
const ROWS: u32 = 32u;
// Terms of the sum that are loaded at a time.
const DEPTH: u32 = 4u;
// Vec4s of columns in the tile: 2, 4 or 8.
override COLUMNS: u32 = 8u;

// sumJ: its column i holds columns 4J to 4J + 3 of row i.
var<private> sum0: mat4x4<f32>;
var<private> sum1: mat4x4<f32>;
var<private> sum2: mat4x4<f32>;
var<private> sum3: mat4x4<f32>;
var<private> sum4: mat4x4<f32>;
var<private> sum5: mat4x4<f32>;
var<private> sum6: mat4x4<f32>;
var<private> sum7: mat4x4<f32>;

// The first row within the tile that an invocation loads.
fn row_of(local: u32) -> u32 {
    return local * 4u;
}

// The first column within the tile that an invocation loads.
fn column_of(local: u32) -> u32 {
    return local * 4u;
}

// The first term, of DEPTH, of the rows and of the columns that an invocation loads.
fn row_step_of(local: u32) -> u32 {
    return 0u;
}

fn column_step_of(local: u32) -> u32 {
    return 0u;
}

// a bᵀ
fn outer(a: vec4<f32>, b: vec4<f32>) -> mat4x4<f32> {
    return mat4x4<f32>(a * b.x, a * b.y, a * b.z, a * b.w);
}

fn add_product(columns: vec4<f32>, rows: vec4<f32>) {
    sum0 += outer(subgroupBroadcast(columns, 0u), rows);
    sum1 += outer(subgroupBroadcast(columns, 1u), rows);
    if COLUMNS > 2u {
        sum2 += outer(subgroupBroadcast(columns, 2u), rows);
        sum3 += outer(subgroupBroadcast(columns, 3u), rows);
    }
    if COLUMNS > 4u {
        sum4 += outer(subgroupBroadcast(columns, 4u), rows);
        sum5 += outer(subgroupBroadcast(columns, 5u), rows);
        sum6 += outer(subgroupBroadcast(columns, 6u), rows);
        sum7 += outer(subgroupBroadcast(columns, 7u), rows);
    }
}

// Adds DEPTH terms to the tile: column j of `columns` and of `rows` holds the four columns and rows
// that the invocation loaded for term j.
fn add_products(columns: mat4x4<f32>, rows: mat4x4<f32>, place: Place) {
    add_product(columns[0], rows[0]);
    add_product(columns[1], rows[1]);
    add_product(columns[2], rows[2]);
    add_product(columns[3], rows[3]);
}

// The first column within the tile whose bias an invocation loads.
fn bias_column_of(local: u32) -> u32 {
    return column_of(local);
}

// Adds the bias of four columns to every row. Each invocation has those from bias_column_of on.
fn add_to_rows(columns: vec4<f32>, local: u32) {
    add_product(columns, vec4<f32>(1.0));
}

// Stores the tile whose first row and column are given.
fn store_tile(row: u32, column: u32, place: Place) {
    let local = place.local;
    let down = row + local * 4u;
    store_rows(down, column, sum0);
    store_rows(down, column + 4u, sum1);
    if COLUMNS > 2u {
        store_rows(down, column + 8u, sum2);
        store_rows(down, column + 12u, sum3);
    }
    if COLUMNS > 4u {
        store_rows(down, column + 16u, sum4);
        store_rows(down, column + 20u, sum5);
        store_rows(down, column + 24u, sum6);
        store_rows(down, column + 28u, sum7);
    }
}

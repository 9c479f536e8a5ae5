// A tile of a matrix product, 32 rows by 4*COLUMNS columns, summed by a subgroup of 8 invocations
// or more. An invocation holds 4 rows and all columns.
// A step adds outer products: every invocation brings its own rows; of the columns each of 8
// invocations brings 4, and the others take them from there, register to register. A load from
// memory then serves 8 times as many products as one that each invocation makes for itself.
const SIZE: u32 = 8u;
const ROWS: u32 = 32u;
// Steps at once.
const DEPTH: u32 = 4u;
// How many vec4s of columns, 2, 4 or 8, are in use.
override COLUMNS: u32 = 8u;

// sumJ: column i holds columns 4J..4J+3 of row i.
var<private> sum0: mat4x4<f32>;
var<private> sum1: mat4x4<f32>;
var<private> sum2: mat4x4<f32>;
var<private> sum3: mat4x4<f32>;
var<private> sum4: mat4x4<f32>;
var<private> sum5: mat4x4<f32>;
var<private> sum6: mat4x4<f32>;
var<private> sum7: mat4x4<f32>;

// The first of the rows, columns and steps that an invocation loads, within the tile.
fn row_of(local: u32) -> u32 {
    return local * 4u;
}

fn column_of(local: u32) -> u32 {
    return local * 4u;
}

fn step_of(local: u32) -> u32 {
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

// Adds four steps: a column of either matrix holds what the invocation loads for one.
fn add_products(columns: mat4x4<f32>, rows: mat4x4<f32>, local: u32) {
    add_product(columns[0], rows[0]);
    add_product(columns[1], rows[1]);
    add_product(columns[2], rows[2]);
    add_product(columns[3], rows[3]);
}

// Adds the same to every row: the four values of the columns that the invocation loads.
fn add_to_rows(columns: vec4<f32>, local: u32) {
    add_product(columns, vec4<f32>(1.0));
}

// Stores the tile whose first row and column are given.
fn store_tile(row: u32, column: u32, local: u32) {
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

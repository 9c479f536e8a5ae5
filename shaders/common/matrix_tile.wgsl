// A tile of a matrix product on cooperative matrices: 64 rows by 4*COLUMNS columns, summed by a
// workgroup of four subgroups of 32 invocations. Operands are f16, sums are f32. 32 terms of the
// sum are in workgroup memory at a time. Each subgroup computes 16 rows and all columns.
// Precondition: invocations of a subgroup have consecutive local indices.

const SIZE: u32 = 128u;
const ROWS: u32 = 64u;
// Terms of the sum in workgroup memory at a time.
const DEPTH: u32 = 32u;
// Vec4s of columns in the tile: 4, 8 or 16.
override COLUMNS: u32 = 16u;

// Strides in vec4s from term to term, and from row to row of sums. They exceed the 16 vec4s of data
// so that consecutive lines start in different memory banks.
const STEP: u32 = 18u;
const SUM_ROW: u32 = 17u;

// For each term the tile's rows and columns as vec4s (32 * STEP), and 16 rows of sums of one
// subgroup (16 * SUM_ROW).
var<workgroup> row_tile: array<vec4<f16>, 576>;
var<workgroup> column_tile: array<vec4<f16>, 576>;
var<workgroup> sum_tile: array<vec4<f32>, 272>;

// The subgroup's sums, 16 columns each.
var<private> sum0: Sums;
var<private> sum1: Sums;
var<private> sum2: Sums;
var<private> sum3: Sums;
// The bias of the four columns that the invocation loads, which are also those that it stores.
var<private> added: vec4<f32>;

// The first row within the tile that an invocation loads.
fn row_of(local: u32) -> u32 {
    return local % 16u * 4u;
}

// The first column within the tile that an invocation loads. Beyond the columns of a narrow tile
// the loaded values are not used.
fn column_of(local: u32) -> u32 {
    return local % 16u * 4u;
}

// The first term, of DEPTH, that an invocation loads.
fn step_of(local: u32) -> u32 {
    return local / 16u * 4u;
}

// Adds DEPTH terms to the tile. Each invocation contributes four of them: column j of `columns` and
// of `rows` holds the four columns and rows that it loaded for term j.
fn add_products(columns: mat4x4<f32>, rows: mat4x4<f32>, local: u32) {
    let at = local / 16u * 4u * STEP + local % 16u;
    workgroupBarrier();
    row_tile[at] = vec4<f16>(rows[0]);
    row_tile[at + STEP] = vec4<f16>(rows[1]);
    row_tile[at + 2u * STEP] = vec4<f16>(rows[2]);
    row_tile[at + 3u * STEP] = vec4<f16>(rows[3]);
    column_tile[at] = vec4<f16>(columns[0]);
    column_tile[at + STEP] = vec4<f16>(columns[1]);
    column_tile[at + 2u * STEP] = vec4<f16>(columns[2]);
    column_tile[at + 3u * STEP] = vec4<f16>(columns[3]);
    workgroupBarrier();
    for (var i = 0u; i < DEPTH * STEP; i += 16u * STEP) {
        let rows16 = rows_at(i + local / 32u * 4u);
        sum0 = add_product(rows16, columns_at(i), sum0, local % 32u);
        if COLUMNS > 4u {
            sum1 = add_product(rows16, columns_at(i + 4u), sum1, local % 32u);
        }
        if COLUMNS > 8u {
            sum2 = add_product(rows16, columns_at(i + 8u), sum2, local % 32u);
            sum3 = add_product(rows16, columns_at(i + 12u), sum3, local % 32u);
        }
    }
}

// Adds the bias of the four columns that the invocation loads to every row.
fn add_to_rows(columns: vec4<f32>, local: u32) {
    added = columns;
}

// Stores the tile whose first row and column are given, one subgroup's rows after the other's.
fn store_tile(row: u32, column: u32, local: u32) {
    let down = local / 16u * 4u;
    let at = down % 16u * SUM_ROW + local % 16u;
    for (var i = 0u; i < 4u; i++) {
        workgroupBarrier();
        if local / 32u == i {
            put_sums(sum0, 0u, local % 32u);
            if COLUMNS > 4u {
                put_sums(sum1, 4u, local % 32u);
            }
            if COLUMNS > 8u {
                put_sums(sum2, 8u, local % 32u);
                put_sums(sum3, 12u, local % 32u);
            }
        }
        workgroupBarrier();
        // An invocation stores four rows, so that the epilogue can use all four (max pooling).
        if local < 64u && column_of(local) < 4u * COLUMNS {
            let sums = mat4x4<f32>(
                sum_tile[at],
                sum_tile[at + SUM_ROW],
                sum_tile[at + 2u * SUM_ROW],
                sum_tile[at + 3u * SUM_ROW],
            );
            let bias = mat4x4<f32>(added, added, added, added);
            store_rows(row + i * 16u + down, column + column_of(local), sums + bias);
        }
    }
}

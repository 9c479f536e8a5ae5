// The workgroup memory of common/matrix_tile.wgsl and the sums of a subgroup, for matrices of 8 by
// 8 in single precision. Memory consists of scalars, since cooperative matrices on Metal are loaded
// and stored by pointers to scalars.

const SIZE: u32 = 64u;
// Terms of the sum in the buffer. There is one, since Metal's workgroups share little memory.
const DEPTH: u32 = 16u;
const BUFFERS: u32 = 1u;
// Rows, columns and terms of a matrix.
const SIDE: u32 = 8u;
// The number of blocks of 16 rows that a subgroup sums.
const BLOCKS: u32 = 2u;

// Strides from term to term, and from row to row of sums. They exceed the 64 values of data so that
// consecutive lines start in different memory banks.
const LINE: u32 = 68u;
const SUM_LINE: u32 = 68u;

// For each term the tile's rows and columns, and 16 rows of sums of one subgroup.
var<workgroup> row_tile: array<f32, BUFFERS * DEPTH * LINE>;
var<workgroup> column_tile: array<f32, BUFFERS * DEPTH * LINE>;
var<workgroup> sum_tile: array<f32, 16u * SUM_LINE>;

// The sums of 8 columns: for each block of rows its first and its last 8 rows.
struct Column {
    first0: Sums,
    last0: Sums,
    first1: Sums,
    last1: Sums,
}

var<private> sums0: Column;
var<private> sums1: Column;
var<private> sums2: Column;
var<private> sums3: Column;
var<private> sums4: Column;
var<private> sums5: Column;
var<private> sums6: Column;
var<private> sums7: Column;

// Keeps four rows and columns of a term.
fn keep(line: u32, at: u32, rows: vec4<f32>, columns: vec4<f32>) {
    let i = line * LINE + at;
    row_tile[i] = rows.x;
    row_tile[i + 1u] = rows.y;
    row_tile[i + 2u] = rows.z;
    row_tile[i + 3u] = rows.w;
    column_tile[i] = columns.x;
    column_tile[i + 1u] = columns.y;
    column_tile[i + 2u] = columns.z;
    column_tile[i + 3u] = columns.w;
}

fn row_at(line: u32, row: u32) -> f32 {
    return row_tile[line * LINE + row];
}

fn four_columns_at(line: u32, column: u32) -> vec4<f32> {
    let i = line * LINE + column;
    return vec4<f32>(column_tile[i], column_tile[i + 1u], column_tile[i + 2u], column_tile[i + 3u]);
}

fn put_four_sums(row: u32, column: u32, v: vec4<f32>) {
    let i = row * SUM_LINE + column;
    sum_tile[i] = v.x;
    sum_tile[i + 1u] = v.y;
    sum_tile[i + 2u] = v.z;
    sum_tile[i + 3u] = v.w;
}

fn four_sums_at(row: u32, column: u32) -> vec4<f32> {
    let i = row * SUM_LINE + column;
    return vec4<f32>(sum_tile[i], sum_tile[i + 1u], sum_tile[i + 2u], sum_tile[i + 3u]);
}

// The matrices of the rows of the subgroup, for some terms.
struct RowMatrices {
    first0: RowMatrix,
    last0: RowMatrix,
    first1: RowMatrix,
    last1: RowMatrix,
}

fn add_to(sums: ptr<private, Column>, rows: RowMatrices, columns: ColumnMatrix, lane: u32) {
    (*sums).first0 = add_product(rows.first0, columns, (*sums).first0, lane);
    (*sums).last0 = add_product(rows.last0, columns, (*sums).last0, lane);
    (*sums).first1 = add_product(rows.first1, columns, (*sums).first1, lane);
    (*sums).last1 = add_product(rows.last1, columns, (*sums).last1, lane);
}

// Adds 8 terms from `line` on to the blocks of rows that begin at `row0` and `row1`.
fn add_lines(line: u32, row0: u32, row1: u32, lane: u32) {
    let rows = RowMatrices(
        rows_at(line, row0),
        rows_at(line, row0 + 8u),
        rows_at(line, row1),
        rows_at(line, row1 + 8u),
    );
    add_to(&sums0, rows, columns_at(line, 0u), lane);
    add_to(&sums1, rows, columns_at(line, 8u), lane);
    if COLUMNS > 4u {
        add_to(&sums2, rows, columns_at(line, 16u), lane);
        add_to(&sums3, rows, columns_at(line, 24u), lane);
    }
    if COLUMNS > 8u {
        add_to(&sums4, rows, columns_at(line, 32u), lane);
        add_to(&sums5, rows, columns_at(line, 40u), lane);
        add_to(&sums6, rows, columns_at(line, 48u), lane);
        add_to(&sums7, rows, columns_at(line, 56u), lane);
    }
}

fn clear_sums() {
    let zero = Column(Sums(), Sums(), Sums(), Sums());
    sums0 = zero;
    sums1 = zero;
    sums2 = zero;
    sums3 = zero;
    sums4 = zero;
    sums5 = zero;
    sums6 = zero;
    sums7 = zero;
}

fn put_column(sums: ptr<private, Column>, block: u32, column: u32, lane: u32) {
    if block == 0u {
        put_sums((*sums).first0, 0u, column, lane);
        put_sums((*sums).last0, 8u, column, lane);
    } else {
        put_sums((*sums).first1, 0u, column, lane);
        put_sums((*sums).last1, 8u, column, lane);
    }
}

// Puts the sums of a block of rows into sum_tile.
fn put_block(block: u32, lane: u32) {
    put_column(&sums0, block, 0u, lane);
    put_column(&sums1, block, 8u, lane);
    if COLUMNS > 4u {
        put_column(&sums2, block, 16u, lane);
        put_column(&sums3, block, 24u, lane);
    }
    if COLUMNS > 8u {
        put_column(&sums4, block, 32u, lane);
        put_column(&sums5, block, 40u, lane);
        put_column(&sums6, block, 48u, lane);
        put_column(&sums7, block, 56u, lane);
    }
}

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

// Loops over it have a fixed number of iterations, so that compilers keep it in registers.
var<private> sums: array<Column, 8>;

// Keeps four rows of a term.
fn keep_four_rows(i: u32, rows: vec4<f32>) {
    row_tile[i] = rows.x;
    row_tile[i + 1u] = rows.y;
    row_tile[i + 2u] = rows.z;
    row_tile[i + 3u] = rows.w;
}

// Keeps four terms of four rows: column j of `rows` holds the rows of term j.
fn keep_rows(line: u32, row: u32, rows: mat4x4<f32>) {
    let i = line * LINE + row;
    keep_four_rows(i, rows[0]);
    keep_four_rows(i + LINE, rows[1]);
    keep_four_rows(i + 2u * LINE, rows[2]);
    keep_four_rows(i + 3u * LINE, rows[3]);
}

fn keep_four_columns(i: u32, columns: vec4<f32>) {
    column_tile[i] = columns.x;
    column_tile[i + 1u] = columns.y;
    column_tile[i + 2u] = columns.z;
    column_tile[i + 3u] = columns.w;
}

// The same for columns.
fn keep_columns(line: u32, column: u32, columns: mat4x4<f32>) {
    let i = line * LINE + column;
    keep_four_columns(i, columns[0]);
    keep_four_columns(i + LINE, columns[1]);
    keep_four_columns(i + 2u * LINE, columns[2]);
    keep_four_columns(i + 3u * LINE, columns[3]);
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

// Adds 8 terms from `line` on to the blocks of rows that begin at `row0` and `row1`.
fn add_lines(line: u32, row0: u32, row1: u32, lane: u32) {
    let rows = RowMatrices(
        rows_at(line, row0),
        rows_at(line, row0 + 8u),
        rows_at(line, row1),
        rows_at(line, row1 + 8u),
    );
    for (var i = 0u; i < COLUMNS / 2u; i++) {
        let columns = columns_at(line, 8u * i);
        let column = &sums[i];
        (*column).first0 = add_product(rows.first0, columns, (*column).first0, lane);
        (*column).last0 = add_product(rows.last0, columns, (*column).last0, lane);
        (*column).first1 = add_product(rows.first1, columns, (*column).first1, lane);
        (*column).last1 = add_product(rows.last1, columns, (*column).last1, lane);
    }
}

fn clear_sums() {
    for (var i = 0u; i < COLUMNS / 2u; i++) {
        sums[i] = Column(Sums(), Sums(), Sums(), Sums());
    }
}

// Puts the sums of a block of rows into sum_tile.
fn put_block(block: u32, lane: u32) {
    for (var i = 0u; i < COLUMNS / 2u; i++) {
        let column = &sums[i];
        if block == 0u {
            put_sums((*column).first0, 0u, 8u * i, lane);
            put_sums((*column).last0, 8u, 8u * i, lane);
        } else {
            put_sums((*column).first1, 0u, 8u * i, lane);
            put_sums((*column).last1, 8u, 8u * i, lane);
        }
    }
}

// The workgroup memory of common/matrix_tile.wgsl and the sums of a subgroup, for matrices of 16 by
// 16. Operands are f16, sums are f32.

const SIZE: u32 = 128u;
// Terms of the sum in a buffer. A subgroup multiplies from one of two buffers while another one
// still stores into the other.
const DEPTH: u32 = 32u;
const BUFFERS: u32 = 2u;
// Rows, columns and terms of a matrix.
const SIDE: u32 = 16u;
// The number of blocks of 16 rows that a subgroup may have to sum: 1 if subgroups have at most 32
// invocations, else 2.
override BLOCKS: u32 = 2u;

// Strides in vec4s from term to term, and from row to row of sums. They exceed the 16 vec4s of data
// so that consecutive lines start in different memory banks.
const LINE: u32 = 18u;
const SUM_LINE: u32 = 17u;

// For each term the tile's rows and columns as vec4s, and 16 rows of sums of one subgroup.
var<workgroup> row_tile: array<vec4<f16>, BUFFERS * DEPTH * LINE>;
var<workgroup> column_tile: array<vec4<f16>, BUFFERS * DEPTH * LINE>;
var<workgroup> sum_tile: array<vec4<f32>, 16u * SUM_LINE>;

// The sums of 16 columns, for each block of rows.
struct Column {
    block0: Sums,
    block1: Sums,
}

var<private> sums0: Column;
var<private> sums1: Column;
var<private> sums2: Column;
var<private> sums3: Column;

// Keeps four rows and columns of a term.
fn keep(line: u32, at: u32, rows: vec4<f32>, columns: vec4<f32>) {
    row_tile[line * LINE + at / 4u] = vec4<f16>(rows);
    column_tile[line * LINE + at / 4u] = vec4<f16>(columns);
}

fn row_at(line: u32, row: u32) -> f32 {
    return f32(row_tile[line * LINE + row / 4u][row % 4u]);
}

fn four_columns_at(line: u32, column: u32) -> vec4<f32> {
    return vec4<f32>(column_tile[line * LINE + column / 4u]);
}

fn put_four_sums(row: u32, column: u32, v: vec4<f32>) {
    sum_tile[row * SUM_LINE + column / 4u] = v;
}

fn four_sums_at(row: u32, column: u32) -> vec4<f32> {
    return sum_tile[row * SUM_LINE + column / 4u];
}

// The matrices of the rows of the subgroup, for some terms.
struct RowMatrices {
    block0: RowMatrix,
    block1: RowMatrix,
    // Whether there is a second block.
    two: bool,
}

fn add_to(sums: ptr<private, Column>, rows: RowMatrices, columns: ColumnMatrix, lane: u32) {
    (*sums).block0 = add_product(rows.block0, columns, (*sums).block0, lane);
    if BLOCKS > 1u && rows.two {
        (*sums).block1 = add_product(rows.block1, columns, (*sums).block1, lane);
    }
}

// Adds 16 terms from `line` on to the blocks of rows that begin at `row0` and `row1`. Row 64 begins
// no block.
fn add_lines(line: u32, row0: u32, row1: u32, lane: u32) {
    let rows = RowMatrices(rows_at(line, row0), rows_at(line, row1 % 64u), row1 < 64u);
    add_to(&sums0, rows, columns_at(line, 0u), lane);
    if COLUMNS > 4u {
        add_to(&sums1, rows, columns_at(line, 16u), lane);
    }
    if COLUMNS > 8u {
        add_to(&sums2, rows, columns_at(line, 32u), lane);
        add_to(&sums3, rows, columns_at(line, 48u), lane);
    }
}

fn clear_sums() {
    let zero = Column(Sums(), Sums());
    sums0 = zero;
    sums1 = zero;
    sums2 = zero;
    sums3 = zero;
}

fn put_column(sums: ptr<private, Column>, block: u32, column: u32, lane: u32) {
    if block == 0u {
        put_sums((*sums).block0, 0u, column, lane);
    } else if BLOCKS > 1u {
        put_sums((*sums).block1, 0u, column, lane);
    }
}

// Puts the sums of a block of rows into sum_tile.
fn put_block(block: u32, lane: u32) {
    put_column(&sums0, block, 0u, lane);
    if COLUMNS > 4u {
        put_column(&sums1, block, 16u, lane);
    }
    if COLUMNS > 8u {
        put_column(&sums2, block, 32u, lane);
        put_column(&sums3, block, 48u, lane);
    }
}

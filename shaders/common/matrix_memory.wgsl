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

// Strides in vec4s from line to line, and from row to row of sums. They exceed the 16 vec4s of data
// so that consecutive lines start in different memory banks.
const LINE: u32 = 18u;
const SUM_LINE: u32 = 17u;

// The tile's rows and columns in both buffers as vec4s, and 16 rows of sums of one subgroup. A line
// is a term and has 64 rows or columns. With ROWS_BY_TERM or COLUMNS_BY_TERM it is a row or column
// and has the terms of both buffers.
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

// Where four terms of four rows or columns lie.
fn line_of(by_term: bool, term: u32, at: u32) -> u32 {
    return select(term * LINE + at / 4u, at * LINE + term / 4u, by_term);
}

// Keeps four terms of four rows: column j of `rows` holds the rows of term j.
fn keep_rows(term: u32, row: u32, rows: mat4x4<f32>) {
    let i = line_of(ROWS_BY_TERM, term, row);
    var lines = rows;
    if ROWS_BY_TERM {
        lines = transpose(rows);
    }
    row_tile[i] = vec4<f16>(lines[0]);
    row_tile[i + LINE] = vec4<f16>(lines[1]);
    row_tile[i + 2u * LINE] = vec4<f16>(lines[2]);
    row_tile[i + 3u * LINE] = vec4<f16>(lines[3]);
}

// The same for columns.
fn keep_columns(term: u32, column: u32, columns: mat4x4<f32>) {
    let i = line_of(COLUMNS_BY_TERM, term, column);
    var lines = columns;
    if COLUMNS_BY_TERM {
        lines = transpose(columns);
    }
    column_tile[i] = vec4<f16>(lines[0]);
    column_tile[i + LINE] = vec4<f16>(lines[1]);
    column_tile[i + 2u * LINE] = vec4<f16>(lines[2]);
    column_tile[i + 3u * LINE] = vec4<f16>(lines[3]);
}

fn row_at(term: u32, row: u32) -> f32 {
    if ROWS_BY_TERM {
        return f32(row_tile[row * LINE + term / 4u][term % 4u]);
    }
    return f32(row_tile[term * LINE + row / 4u][row % 4u]);
}

fn four_columns_at(term: u32, column: u32) -> vec4<f32> {
    if COLUMNS_BY_TERM {
        let i = column * LINE + term / 4u;
        return vec4<f32>(vec4<f16>(
            column_tile[i][term % 4u],
            column_tile[i + LINE][term % 4u],
            column_tile[i + 2u * LINE][term % 4u],
            column_tile[i + 3u * LINE][term % 4u],
        ));
    }
    return vec4<f32>(column_tile[term * LINE + column / 4u]);
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

// Adds 16 terms from `term` on to the blocks of rows that begin at `row0` and `row1`. Row 64 begins
// no block.
fn add_lines(term: u32, row0: u32, row1: u32, lane: u32) {
    let rows = RowMatrices(rows_at(term, row0), rows_at(term, row1 % 64u), row1 < 64u);
    add_to(&sums0, rows, columns_at(term, 0u), lane);
    if COLUMNS > 4u {
        add_to(&sums1, rows, columns_at(term, 16u), lane);
    }
    if COLUMNS > 8u {
        add_to(&sums2, rows, columns_at(term, 32u), lane);
        add_to(&sums3, rows, columns_at(term, 48u), lane);
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

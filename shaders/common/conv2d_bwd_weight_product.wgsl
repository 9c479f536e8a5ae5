// The product of the conv2d_bwd_weight kernels with tiles: rows are (r,s,c), columns are filters,
// the sum runs over the pixels (n,p,q) of a slice.

override VEC_C: bool = false;
override VEC_K: bool = false;

@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> x: array<Map>;
@group(0) @binding(2) var<storage, read> x4: array<Map4>;
@group(0) @binding(3) var<storage, read> dy: array<Map>;
@group(0) @binding(4) var<storage, read> dy4: array<Map4>;
@group(0) @binding(5) var<storage, read_write> out: array<f32>;
@group(0) @binding(6) var<storage, read_write> out4: array<Four>;

// In memory the rows of a term are contiguous (the channels of a pixel), and the columns.
const ROWS_BY_TERM: bool = false;
const COLUMNS_BY_TERM: bool = false;

// The slice that the workgroup sums.
var<private> slice: u32;

// Channels are counted in units of vec4s with VEC_C, and filters with VEC_K.
fn unit(vectors: bool) -> u32 {
    return select(1u, 4u, vectors);
}

// Four rows (r,s,c): the offsets of their taps from p*stride and q*stride, and the distances of
// their values in x from the first channel there.
struct Rows {
    down: vec4<u32>,
    along: vec4<u32>,
    at: vec4<i32>,
}

// The four rows from `first` on.
fn locate(first: u32) -> Rows {
    let row = first + vec4<u32>(0u, 1u, 2u, 3u);
    let tap = row / p.c;
    let inside = row < vec4<u32>(p.r * p.s * p.c);
    let down = tap / p.s * p.dilation_h - p.pad_h;
    let along = tap % p.s * p.dilation_w - p.pad_w;
    let at = vec4<i32>((down * p.w + along) * p.c + row % p.c) / i32(unit(VEC_C));
    // 2^30 for rows past the end: outside x whatever a pixel adds.
    return Rows(select(vec4<u32>(0x40000000u), down, inside), along, at);
}

// How the pixels lie in x, in units of channels.
struct Layout {
    // Height and width of x.
    h: u32,
    w: u32,
    // Distances between windows, and the ends of a term's `h` and `w`.
    stride_h: u32,
    stride_w: u32,
    h_end: u32,
    w_end: u32,
    // Distances to the next pixel: in its row, from the end of a row to the next row, and from the
    // end of a sample to the next sample.
    next_pixel: i32,
    next_row: i32,
    next_sample: i32,
}

// A copy of parameters, which compilers keep in registers. They read a uniform again at every use
// in a loop.
var<private> of_x: Layout;

fn layout_of() -> Layout {
    let channels = p.c / unit(VEC_C);
    return Layout(
        p.h,
        p.w,
        p.stride_h,
        p.stride_w,
        p.p * p.stride_h,
        p.q * p.stride_w,
        i32(p.stride_w * channels),
        i32((p.stride_h * p.w - p.q * p.stride_w) * channels),
        i32((p.h - p.p * p.stride_h) * p.w * channels),
    );
}

// A term of the sum: a pixel of y, as its place p*stride, q*stride in x and the distance of the
// first channel there from the start of x.
struct Step {
    h: u32,
    w: u32,
    at: i32,
}

fn term(pixel: u32) -> Step {
    let h = pixel / p.q % p.p * p.stride_h;
    let w = pixel % p.q * p.stride_w;
    let n = pixel / (p.p * p.q);
    return Step(h, w, i32(((n * p.h + h) * p.w + w) * (p.c / unit(VEC_C))));
}

// The first pixel of the next row, for a step past the end of its row.
fn wrap(step: Step, wraps: bool) -> Step {
    var next = step;
    next.w -= select(0u, of_x.w_end, wraps);
    next.h += select(0u, of_x.stride_h, wraps);
    next.at += select(0, of_x.next_row, wraps);
    let ends = next.h == of_x.h_end;
    next.h = select(next.h, 0u, ends);
    next.at += select(0, of_x.next_sample, ends);
    return next;
}

// The term `by` terms further on.
fn advance(step: Step, by: u32) -> Step {
    // Branch-free. One wrap is enough if `by` is 1.
    var next =
        Step(step.h, step.w + by * of_x.stride_w, step.at + i32(by) * of_x.next_pixel);
    next = wrap(next, next.w >= of_x.w_end);
    if DEPTH > 4u {
        while next.w >= of_x.w_end {
            next = wrap(next, true);
        }
    }
    return next;
}

// Whether a row's tap lies in x. Above and left of x the unsigned coordinates wrap to huge values,
// so that one comparison covers both borders. `&` does not branch, as `&&` does. With 32 of these
// branches in a loop, SwiftShader's compiler takes all memory.
fn covers(step: Step, down: u32, along: u32, inside: bool) -> bool {
    return inside & (step.h + down < of_x.h) & (step.w + along < of_x.w);
}

// Four channels of x under a tap, or 0 outside.
fn load_x4(step: Step, rows: Rows, inside: bool) -> vec4<f32> {
    let covered = covers(step, rows.down.x, rows.along.x, inside);
    return select(vec4<f32>(0.0), map4(x4[select(0, step.at + rows.at.x, covered)]), covered);
}

// One channel of x under a tap, or 0 outside.
fn load_x(step: Step, down: u32, along: u32, at: i32, inside: bool) -> f32 {
    let covered = covers(step, down, along, inside);
    return select(0.0, f32(x[select(0, step.at + at, covered)]), covered);
}

// The values of x for a term and four rows.
fn load_rows(step: Step, rows: Rows, inside: bool) -> vec4<f32> {
    if VEC_C {
        return load_x4(step, rows, inside);
    }
    return vec4<f32>(
        load_x(step, rows.down.x, rows.along.x, rows.at.x, inside),
        load_x(step, rows.down.y, rows.along.y, rows.at.y, inside),
        load_x(step, rows.down.z, rows.along.z, rows.at.z, inside),
        load_x(step, rows.down.w, rows.along.w, rows.at.w, inside),
    );
}

// Four filters of dy from element `at` on, in units of filters.
fn load_dy(at: u32) -> vec4<f32> {
    if VEC_K {
        return map4(dy4[at]);
    }
    return vec4<f32>(f32(dy[at]), f32(dy[at + 1u]), f32(dy[at + 2u]), f32(dy[at + 3u]));
}

// Stores four filters of a row.
fn store(row: u32, k: u32, v: vec4<f32>) {
    if row >= p.r * p.s * p.c || k >= p.k {
        return;
    }
    let i = slice * p.slice_stride + row * p.k + k;
    if VEC_K {
        out4[i / 4u] = stored(v);
        return;
    }
    out[i] = v.x;
    if k + 1u < p.k {
        out[i + 1u] = v.y;
    }
    if k + 2u < p.k {
        out[i + 2u] = v.z;
    }
    if k + 3u < p.k {
        out[i + 3u] = v.w;
    }
}

@compute @workgroup_size(SIZE)
fn main(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    place: Place,
) {
    let local = place.local;
    let i = flat_workgroup(group, groups);
    let k_blocks = (p.k + 4u * COLUMNS - 1u) / (4u * COLUMNS);
    let row_blocks = (p.r * p.s * p.c + ROWS - 1u) / ROWS;
    let k = i % k_blocks * 4u * COLUMNS;
    let first = i / k_blocks % row_blocks * ROWS;
    // The loop below contains barriers, so its bounds must be uniform. Uniformity analysis accepts
    // this local, but not the private variable.
    let number = i / (k_blocks * row_blocks);
    // A folded grid may hold workgroups past the last slice.
    if number >= p.slices {
        return;
    }
    slice = number;
    let rows = locate(first + row_of(local));
    of_x = layout_of();
    let column = k + column_of(local);
    let begin = number * p.slice_terms;
    let end = min(begin + p.slice_terms, p.n * p.p * p.q);
    let filters = p.k / unit(VEC_K);
    let first_dy = column / unit(VEC_K);
    // Rows and columns are loaded in the same order.
    var pixel = begin + row_step_of(local);
    var step = term(pixel);
    // For a bias gradient the workgroups of the first rows sum dy, those of the first filters x.
    let adds_dy = SUMS == 1u && first == 0u;
    let adds_x = SUMS == 2u && k == 0u;
    var added = vec4<f32>(0.0);
    for (var done = begin; done < end; done += DEPTH) {
        // Past the end of the slice x is taken as 0, so any pixel of dy will do: the last one.
        let grads = mat4x4<f32>(
            load_dy(min(pixel, end - 1u) * filters + first_dy),
            load_dy(min(pixel + 1u, end - 1u) * filters + first_dy),
            load_dy(min(pixel + 2u, end - 1u) * filters + first_dy),
            load_dy(min(pixel + 3u, end - 1u) * filters + first_dy),
        );
        if adds_dy {
            added += select(vec4<f32>(0.0), grads[0], pixel < end)
                + select(vec4<f32>(0.0), grads[1], pixel + 1u < end)
                + select(vec4<f32>(0.0), grads[2], pixel + 2u < end)
                + select(vec4<f32>(0.0), grads[3], pixel + 3u < end);
        }
        let values0 = load_rows(step, rows, pixel < end);
        step = advance(step, 1u);
        let values1 = load_rows(step, rows, pixel + 1u < end);
        step = advance(step, 1u);
        let values2 = load_rows(step, rows, pixel + 2u < end);
        step = advance(step, 1u);
        let values3 = load_rows(step, rows, pixel + 3u < end);
        step = advance(step, DEPTH - 3u);
        if adds_x {
            added += (values0 + values1) + (values2 + values3);
        }
        add_products(grads, mat4x4<f32>(values0, values1, values2, values3), place);
        pixel += DEPTH;
    }
    store_tile(first, k, place);
    if adds_dy {
        store_filter_sums(added, number, k, local);
    }
    if adds_x {
        store_row_sums(added, number, first + row_of(local), rows, local);
    }
}

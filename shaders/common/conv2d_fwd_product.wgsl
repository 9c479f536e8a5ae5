// The product of the forward convolution kernels with tiles: rows are pixels, in the order of
// conv2d_fwd_pixels or conv2d_fwd_windows, columns are filters, the sum runs over (r,s,c).

override VEC_C: bool = false;
override VEC_K: bool = false;

@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> x: array<Map>;
@group(0) @binding(2) var<storage, read> x4: array<Map4>;
@group(0) @binding(3) var<storage, read> w: array<f32>;
@group(0) @binding(4) var<storage, read> w4: array<Four>;
@group(0) @binding(5) var<storage, read> b: array<f32>;

// In memory the terms of a row are contiguous (the channels of a pixel), and the columns of a term.
const ROWS_BY_TERM: bool = true;
const COLUMNS_BY_TERM: bool = false;

// The slice of the sum that the workgroup computes.
var<private> slice: u32;

// Channels are counted in units of vec4s with VEC_C, and filters with VEC_K.
fn unit(vectors: bool) -> u32 {
    return select(1u, 4u, vectors);
}

// How a term's values lie in x, in units of channels.
struct Layout {
    // Channels of a pixel.
    channels: u32,
    // The ends of a term's `h` and `w`.
    h_end: u32,
    w_end: u32,
    // Distances from the last channel of a tap to the first of the next one: in its row of taps,
    // and from the end of a row to the next row.
    next_tap: i32,
    next_row: i32,
}

// A copy of parameters, which compilers keep in registers. They read a uniform again at every use
// in a loop.
var<private> of_x: Layout;

fn layout_of() -> Layout {
    let channels = p.c / unit(VEC_C);
    return Layout(
        channels,
        p.r * p.dilation_h,
        p.s * p.dilation_w,
        (i32(p.dilation_w) - 1) * i32(channels),
        i32(p.dilation_h * p.w - p.s * p.dilation_w) * i32(channels),
    );
}

// A term of the sum: a channel, and the offsets of its tap from the corner of a window. `at` is the
// distance of its value in x from the first channel of the corner.
struct Step {
    h: u32,
    w: u32,
    c: u32,
    at: i32,
}

fn term(number: u32) -> Step {
    let tap = number / of_x.channels;
    let h = tap / p.s * p.dilation_h;
    let w = tap % p.s * p.dilation_w;
    let c = number % of_x.channels;
    return Step(h, w, c, i32((h * p.w + w) * of_x.channels + c));
}

// The first channel of the next tap, for a step past the channels of its tap.
fn wrap(step: Step, wraps: bool) -> Step {
    var next = step;
    next.c -= select(0u, of_x.channels, wraps);
    next.w += select(0u, p.dilation_w, wraps);
    next.at += select(0, of_x.next_tap, wraps);
    let ends = next.w == of_x.w_end;
    next.w = select(next.w, 0u, ends);
    next.h += select(0u, p.dilation_h, ends);
    next.at += select(0, of_x.next_row, ends);
    return next;
}

// The term `by` units further on.
fn advance(step: Step, by: u32) -> Step {
    // Branch-free. One wrap is enough for one unit.
    var next = Step(step.h, step.w, step.c + by, step.at + i32(by));
    next = wrap(next, next.c >= of_x.channels);
    if DEPTH > 4u {
        while next.c >= of_x.channels {
            next = wrap(next, true);
        }
    }
    return next;
}

// The indices in x of the four pixels' values for a term, in units of channels; -1 in the padding
// and past the last tap. `first` are the indices of the first channels of the pixels' corners.
fn under_tap(pixels: Pixels, first: vec4<i32>, step: Step) -> vec4<i32> {
    let h = pixels.h + i32(step.h);
    let column = pixels.w + i32(step.w);
    let inside = (vec4<u32>(h) < vec4<u32>(p.h))
        & (vec4<u32>(column) < vec4<u32>(p.w))
        & vec4<bool>(step.h < of_x.h_end);
    return select(vec4<i32>(-1), first + step.at, inside);
}

// In the padding element 0 is read and discarded, which is cheaper than a branch.
fn load_x4(at: i32) -> vec4<f32> {
    return select(map4(x4[max(at, 0)]), vec4<f32>(0.0), at < 0);
}

fn load_x(at: i32) -> f32 {
    return select(f32(x[max(at, 0)]), 0.0, at < 0);
}

fn load_four(at: vec4<i32>) -> vec4<f32> {
    return vec4<f32>(load_x(at.x), load_x(at.y), load_x(at.z), load_x(at.w));
}

// Four filters from element `at` of w on, in units of filters. Past the last term the values of x
// are 0, so any weights will do: the last element `last` serves there.
fn load_w(at: u32, last: u32) -> vec4<f32> {
    let i = min(at, last);
    if VEC_K {
        return four(w4[i]);
    }
    return vec4<f32>(w[i], w[i + 1u], w[i + 2u], w[i + 3u]);
}

@compute @workgroup_size(SIZE)
fn main(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    place: Place,
) {
    let local = place.local;
    let i = flat_workgroup(group, groups);
    let blocks = (p.k + 4u * COLUMNS - 1u) / (4u * COLUMNS);
    let k = i % blocks * 4u * COLUMNS;
    let row_blocks = (rows() + ROWS - 1u) / ROWS;
    let first = i / blocks % row_blocks * ROWS;
    // The loop below contains barriers, so its bounds must be uniform. Uniformity analysis accepts
    // this local, but not the private variable.
    let number = i / (blocks * row_blocks);
    // A folded grid may hold workgroups past the last slice.
    if number >= p.slices {
        return;
    }
    slice = number;
    let column = k + column_of(local);
    if p.has_bias != 0u {
        let at = k + bias_column_of(local);
        add_to_rows(vec4<f32>(b[at], b[at + 1u], b[at + 2u], b[at + 3u]), local);
    }
    let pixels = locate(first + row_of(local));
    of_x = layout_of();
    let corners = pixels.corner * i32(of_x.channels);
    let begin = number * p.slice_terms;
    let end = min(begin + p.slice_terms, p.r * p.s * p.c);
    let filters = p.k / unit(VEC_K);
    let last = p.r * p.s * p.c * filters - 1u;
    var weight = (begin + column_step_of(local)) * filters + column / unit(VEC_K);
    var step = term((begin + row_step_of(local)) / unit(VEC_C));
    for (var done = begin; done < end; done += DEPTH) {
        let weights = mat4x4<f32>(
            load_w(weight, last),
            load_w(weight + filters, last),
            load_w(weight + 2u * filters, last),
            load_w(weight + 3u * filters, last),
        );
        weight += DEPTH * filters;
        if VEC_C {
            let at = under_tap(pixels, corners, step);
            let values = mat4x4<f32>(load_x4(at.x), load_x4(at.y), load_x4(at.z), load_x4(at.w));
            add_products(weights, transpose(values), place);
            step = advance(step, DEPTH / 4u);
        } else {
            let at0 = under_tap(pixels, corners, step);
            step = advance(step, 1u);
            let at1 = under_tap(pixels, corners, step);
            step = advance(step, 1u);
            let at2 = under_tap(pixels, corners, step);
            step = advance(step, 1u);
            let at3 = under_tap(pixels, corners, step);
            step = advance(step, DEPTH - 3u);
            let values =
                mat4x4<f32>(load_four(at0), load_four(at1), load_four(at2), load_four(at3));
            add_products(weights, values, place);
        }
    }
    store_tile(first, k, place);
}

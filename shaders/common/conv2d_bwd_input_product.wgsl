// The product of the conv2d_bwd_input kernels with tiles: rows are the pixels of one phase of x,
// columns are channels, the sum runs over the taps of the phase and the filters. A phase is the set
// of pixels with the same (h mod stride, w mod stride): they share their taps.

override VEC_C: bool = false;
override VEC_K: bool = false;

@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> y: array<Map>;
@group(0) @binding(2) var<storage, read> y4: array<Map4>;
@group(0) @binding(3) var<storage, read> w: array<f32>;
@group(0) @binding(4) var<storage, read> w4: array<Four>;
@group(0) @binding(5) var<storage, read> b: array<f32>;

// In memory the terms of a row and of a column are contiguous (the filters of a pixel of y, and of
// a channel of w).
const ROWS_BY_TERM: bool = true;
const COLUMNS_BY_TERM: bool = true;

// The slice of the sum that the workgroup computes.
var<private> slice: u32;

// A phase: its first pixel of x, and the size of its grid of pixels.
struct Phase {
    h: u32,
    w: u32,
    rows: u32,
    columns: u32,
}

// The taps of a phase along one axis: first + j * spacing for j < count. Tap j takes position i of
// the phase's grid to position i - (offset + j * offset_step) of y.
struct Taps {
    first: u32,
    spacing: u32,
    count: u32,
    offset: i32,
    offset_step: i32,
}

var<private> phase: Phase;
var<private> down: Taps;
var<private> along: Taps;

// The taps t < count for which at - t*dilation is a multiple of the stride.
fn taps_of(at: u32, count: u32, dilation: u32, stride: u32) -> Taps {
    var taps = Taps(0u, 1u, 0u, 0, 0);
    // Whole strides are added to keep the operand of % positive: OpenGL leaves the remainder of a
    // negative number undefined.
    let positive = at + count * dilation * stride;
    while taps.first < count && (positive - taps.first * dilation) % stride != 0u {
        taps.first++;
    }
    while taps.spacing * dilation % stride != 0u {
        taps.spacing++;
    }
    taps.count = (count - taps.first + taps.spacing - 1u) / taps.spacing;
    taps.offset = i32(count * dilation) - i32((positive - taps.first * dilation) / stride);
    taps.offset_step = i32(taps.spacing * dilation / stride);
    return taps;
}

fn phase_of(number: u32) -> Phase {
    let rows = (p.h + p.stride_h - 1u) / p.stride_h;
    let columns = (p.w + p.stride_w - 1u) / p.stride_w;
    return Phase(number / p.stride_w, number % p.stride_w, rows, columns);
}

// Four pixels of x: their places in the phase's grid, and the numbers (n*P + h)*Q + w of the pixels
// of y at these places.
struct Pixels {
    h: vec4<i32>,
    w: vec4<i32>,
    pixel: vec4<i32>,
}

// The four pixels from number `first` of the phase on.
fn locate(first: u32) -> Pixels {
    let pixel = first + vec4<u32>(0u, 1u, 2u, 3u);
    let row = pixel / phase.columns;
    let inside = row < vec4<u32>(p.n * phase.rows);
    let h = vec4<i32>(row % phase.rows);
    let w = vec4<i32>(pixel % phase.columns);
    let at = (vec4<i32>(row / phase.rows) * i32(p.p) + h) * i32(p.q) + w;
    // -2^30 for pixels past the end: outside y whatever a tap adds.
    return Pixels(select(vec4<i32>(-0x40000000), h, inside), w, at);
}

// Filters are counted in units of vec4s with VEC_K.
fn unit() -> u32 {
    return select(1u, 4u, VEC_K);
}

// How a term's values lie in y and w, in units of filters.
struct Layout {
    // Filters of a pixel.
    filters: u32,
    // The ends of a term's `h` and `w`.
    h_end: i32,
    w_end: i32,
    // Distances in y from the last filter of a tap to the first of the next one: in its row of
    // taps, and from the end of a row to the next row.
    next_tap: i32,
    next_row: i32,
    // The same distances in w.
    next_tap_weight: i32,
    next_row_weight: i32,
}

// A copy of parameters, which compilers keep in registers. They read a uniform again at every use
// in a loop.
var<private> of_y: Layout;

fn layout_of() -> Layout {
    let filters = p.k / unit();
    // Filters of all channels of a tap.
    let tap = i32(p.c * filters);
    return Layout(
        filters,
        down.offset + i32(down.count) * down.offset_step,
        along.offset + i32(along.count) * along.offset_step,
        -(along.offset_step + 1) * i32(filters),
        (i32(along.count) * along.offset_step - down.offset_step * i32(p.q)) * i32(filters),
        i32(along.spacing) * tap - i32(filters),
        (i32(down.spacing * p.s) - i32(along.count * along.spacing)) * tap,
    );
}

// A term of the sum: a filter, and the offsets of its tap from a pixel to y. `at` is the distance
// of its value in y from the first filter of the pixel, `weight` its weight for channel 0.
struct Step {
    h: i32,
    w: i32,
    k: u32,
    at: i32,
    weight: i32,
}

fn term(number: u32) -> Step {
    let tap = number / of_y.filters;
    // A phase without taps has no terms.
    let r = tap / max(along.count, 1u);
    let s = tap % max(along.count, 1u);
    let h = down.offset + i32(r) * down.offset_step;
    let w = along.offset + i32(s) * along.offset_step;
    let k = number % of_y.filters;
    let at = -(h * i32(p.q) + w) * i32(of_y.filters) + i32(k);
    let first = (down.first + r * down.spacing) * p.s + along.first + s * along.spacing;
    return Step(h, w, k, at, i32(first * p.c * of_y.filters + k));
}

// The first filter of the next tap, for a step past the filters of its tap.
fn wrap(step: Step, wraps: bool) -> Step {
    var next = step;
    next.k -= select(0u, of_y.filters, wraps);
    next.w += select(0, along.offset_step, wraps);
    next.at += select(0, of_y.next_tap, wraps);
    next.weight += select(0, of_y.next_tap_weight, wraps);
    let ends = next.w == of_y.w_end;
    next.w = select(next.w, along.offset, ends);
    next.h += select(0, down.offset_step, ends);
    next.at += select(0, of_y.next_row, ends);
    next.weight += select(0, of_y.next_row_weight, ends);
    return next;
}

// The term `by` units further on.
fn advance(step: Step, by: u32) -> Step {
    // Branch-free. One wrap is enough for one unit.
    var next = Step(step.h, step.w, step.k + by, step.at + i32(by), step.weight + i32(by));
    next = wrap(next, next.k >= of_y.filters);
    if DEPTH > 4u {
        while next.k >= of_y.filters {
            next = wrap(next, true);
        }
    }
    return next;
}

// The indices in y of the four pixels' values for a term, in units of filters; -1 outside y and
// past the last tap. `first` are the indices of the pixels' first filters.
fn under_tap(pixels: Pixels, first: vec4<i32>, step: Step) -> vec4<i32> {
    let row = pixels.h - step.h;
    let column = pixels.w - step.w;
    let inside = (vec4<u32>(row) < vec4<u32>(p.p))
        & (vec4<u32>(column) < vec4<u32>(p.q))
        & vec4<bool>(step.h < of_y.h_end);
    return select(vec4<i32>(-1), first + step.at, inside);
}

// Outside the map element 0 is read and discarded, which is cheaper than a branch.
fn load_y4(at: i32) -> vec4<f32> {
    return select(map4(y4[max(at, 0)]), vec4<f32>(0.0), at < 0);
}

fn load_y(at: i32) -> f32 {
    return select(f32(y[max(at, 0)]), 0.0, at < 0);
}

fn load_four(at: vec4<i32>) -> vec4<f32> {
    return vec4<f32>(load_y(at.x), load_y(at.y), load_y(at.z), load_y(at.w));
}

// The index in w of a term's weight for the first of four channels. Past the last tap the values of
// y are 0, so any weights will do.
fn weight_at(step: Step, channel: i32) -> i32 {
    return select(0, step.weight + channel, step.h < of_y.h_end);
}

// The weights of a term for four channels.
fn load_w(step: Step, channel: i32) -> vec4<f32> {
    let i = weight_at(step, channel);
    let k = i32(of_y.filters);
    return vec4<f32>(w[i], w[i + k], w[i + 2 * k], w[i + 3 * k]);
}

// Stores four channels of a pixel, numbered within the phase.
fn store(pixel: u32, c: u32, sum: vec4<f32>) {
    let row = pixel / phase.columns;
    let n = row / phase.rows;
    let h = row % phase.rows * p.stride_h + phase.h;
    let column = pixel % phase.columns * p.stride_w + phase.w;
    if n >= p.n || h >= p.h || column >= p.w || c >= p.c {
        return;
    }
    put(((n * p.h + h) * p.w + column) * p.c + c, c, sum);
}

@compute @workgroup_size(SIZE)
fn main(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    place: Place,
) {
    let local = place.local;
    let i = flat_workgroup(group, groups);
    let c_blocks = (p.c + 4u * COLUMNS - 1u) / (4u * COLUMNS);
    let c = i % c_blocks * 4u * COLUMNS;
    let grid = phase_of(0u);
    let blocks = (p.n * grid.rows * grid.columns + ROWS - 1u) / ROWS;
    let first = i / c_blocks % blocks * ROWS;
    // The loop below contains barriers, so its bounds must be uniform. Uniformity analysis accepts
    // these locals, but not the private variables.
    let phases = p.stride_h * p.stride_w;
    let number = i / (c_blocks * blocks) % phases;
    let slice_number = i / (c_blocks * blocks * phases);
    // A folded grid may hold workgroups past the last slice.
    if slice_number >= p.slices {
        return;
    }
    slice = slice_number;
    phase = phase_of(number);
    let taps_down = taps_of(number / p.stride_w + p.pad_h, p.r, p.dilation_h, p.stride_h);
    let taps_along = taps_of(number % p.stride_w + p.pad_w, p.s, p.dilation_w, p.stride_w);
    down = taps_down;
    along = taps_along;
    let column = c + column_of(local);
    if p.has_bias != 0u {
        let at = c + bias_column_of(local);
        add_to_rows(vec4<f32>(b[at], b[at + 1u], b[at + 2u], b[at + 3u]), local);
    }
    let pixels = locate(first + row_of(local));
    of_y = layout_of();
    let places = pixels.pixel * i32(of_y.filters);
    let channel = i32(column * of_y.filters);
    let filters = i32(of_y.filters);
    let begin = slice_number * p.slice_terms;
    let end = min(begin + p.slice_terms, taps_down.count * taps_along.count * p.k);
    // Rows and columns are loaded in the same order.
    var step = term((begin + row_step_of(local)) / unit());
    for (var done = begin; done < end; done += DEPTH) {
        if VEC_K {
            let at = under_tap(pixels, places, step);
            let values = mat4x4<f32>(load_y4(at.x), load_y4(at.y), load_y4(at.z), load_y4(at.w));
            let i = weight_at(step, channel);
            let weights = mat4x4<f32>(
                four(w4[i]),
                four(w4[i + filters]),
                four(w4[i + 2 * filters]),
                four(w4[i + 3 * filters]),
            );
            add_products(transpose(weights), transpose(values), place);
            step = advance(step, DEPTH / 4u);
        } else {
            let at0 = under_tap(pixels, places, step);
            let weights0 = load_w(step, channel);
            step = advance(step, 1u);
            let at1 = under_tap(pixels, places, step);
            let weights1 = load_w(step, channel);
            step = advance(step, 1u);
            let at2 = under_tap(pixels, places, step);
            let weights2 = load_w(step, channel);
            step = advance(step, 1u);
            let at3 = under_tap(pixels, places, step);
            let weights3 = load_w(step, channel);
            step = advance(step, DEPTH - 3u);
            let values =
                mat4x4<f32>(load_four(at0), load_four(at1), load_four(at2), load_four(at3));
            add_products(mat4x4<f32>(weights0, weights1, weights2, weights3), values, place);
        }
    }
    store_tile(first, c, place);
}

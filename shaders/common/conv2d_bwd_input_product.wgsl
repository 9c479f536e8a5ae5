override ACTIVATION: u32 = 0u;
override GATED: bool = false;
override VEC_C: bool = false;
override VEC_K: bool = false;

@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> y: array<Map>;
@group(0) @binding(2) var<storage, read> y4: array<Map4>;
@group(0) @binding(3) var<storage, read> w: array<f32>;
@group(0) @binding(4) var<storage, read> w4: array<Four>;
@group(0) @binding(5) var<storage, read> b: array<f32>;
@group(0) @binding(6) var<storage, read> gate: array<Map4>;
@group(0) @binding(7) var<storage, read_write> x: array<Map>;
@group(0) @binding(8) var<storage, read_write> x4: array<Map4>;

// The phase's first pixel of x and the size of its grid of pixels.
struct Phase {
    h: u32,
    w: u32,
    rows: u32,
    columns: u32,
}

// The taps of one direction that reach a phase: first, distance, number; a place in the phase's
// grid less `back` of the first tap, and less `back_by` more for each other, is one of y.
struct Taps {
    first: u32,
    by: u32,
    count: u32,
    back: i32,
    back_by: i32,
}

var<private> phase: Phase;
var<private> down: Taps;
var<private> along: Taps;

// The taps t of `count` with (at - t*dilation) a multiple of the stride.
fn taps_of(at: u32, count: u32, dilation: u32, stride: u32) -> Taps {
    var taps = Taps(0u, 1u, 0u, 0, 0);
    // Kept above 0 by whole strides: OpenGL leaves the remainder of a negative number undefined.
    let above = at + count * dilation * stride;
    while taps.first < count && (above - taps.first * dilation) % stride != 0u {
        taps.first++;
    }
    while taps.by * dilation % stride != 0u {
        taps.by++;
    }
    taps.count = (count - taps.first + taps.by - 1u) / taps.by;
    taps.back = i32(count * dilation) - i32((above - taps.first * dilation) / stride);
    taps.back_by = i32(taps.by * dilation / stride);
    return taps;
}

fn phase_of(number: u32) -> Phase {
    let rows = (p.h + p.stride_h - 1u) / p.stride_h;
    return Phase(number / p.stride_w, number % p.stride_w, rows, (p.w + p.stride_w - 1u) / p.stride_w);
}

// Four pixels of x, numbered within the phase: their sample and place in the phase's grid.
struct Pixels {
    n: vec4<i32>,
    h: vec4<i32>,
    w: vec4<i32>,
}

fn locate(first: u32) -> Pixels {
    let pixel = first + vec4<u32>(0u, 1u, 2u, 3u);
    let row = pixel / phase.columns;
    // A pixel past the end is reached by no tap.
    let h = select(vec4<i32>(-0x40000000), vec4<i32>(row % phase.rows), row < vec4<u32>(p.n * phase.rows));
    return Pixels(vec4<i32>(row / phase.rows), h, vec4<i32>(pixel % phase.columns));
}

// A step: tap (r,s), counted among those of the phase, and filter.
struct Step {
    r: u32,
    s: u32,
    k: u32,
}

fn onward(step: Step, by: u32) -> Step {
    var next = step;
    next.k += by;
    // Without a branch; once is enough where `by` is 1, or 4 with whole vec4s of filters.
    let wraps = next.k >= p.k;
    next.k -= select(0u, p.k, wraps);
    next.s += u32(wraps);
    next.r += u32(next.s == along.count);
    next.s = select(next.s, 0u, next.s == along.count);
    if DEPTH > 4u {
        while next.k >= p.k {
            next.k -= p.k;
            next.s++;
            if next.s == along.count {
                next.s = 0u;
                next.r++;
            }
        }
    }
    return next;
}

// Where the pixels' values of a step lie in y, -1 outside.
fn under_tap(pixels: Pixels, step: Step) -> vec4<i32> {
    let row = pixels.h - (down.back + i32(step.r) * down.back_by);
    let column = pixels.w - (along.back + i32(step.s) * along.back_by);
    let inside = (vec4<u32>(row) < vec4<u32>(p.p)) & (vec4<u32>(column) < vec4<u32>(p.q)) & vec4<bool>(step.r < down.count);
    return select(vec4<i32>(-1), ((pixels.n * i32(p.p) + row) * i32(p.q) + column) * i32(p.k) + i32(step.k), inside);
}

// Where the weights of a step and a channel lie. Past the last tap the pixels' values are 0, and
// any weights will do.
fn weight_of(step: Step, c: u32) -> u32 {
    let tap = (down.first + step.r * down.by) * p.s + along.first + step.s * along.by;
    return select(0u, (tap * p.c + c) * p.k + step.k, step.r < down.count);
}

// Outside the map the first element is read and dropped: cheaper than a branch.
fn load_y4(at: i32) -> vec4<f32> {
    return select(map4(y4[u32(max(at, 0)) / 4u]), vec4<f32>(0.0), at < 0);
}

fn load_y(at: i32) -> f32 {
    return select(f32(y[u32(max(at, 0))]), 0.0, at < 0);
}

// What is stored at i: f of the sum, or the sum by the slope of the f whose output lies there.
fn finished(i: u32, sum: vec4<f32>) -> vec4<f32> {
    if GATED {
        return sum * activation_slope_output4(ACTIVATION, p.parameter, gate4_at(i, VEC_C));
    }
    return activate4(ACTIVATION, p.parameter, sum);
}

fn store(pixel: u32, c: u32, sum: vec4<f32>) {
    let row = pixel / phase.columns;
    let n = row / phase.rows;
    let h = row % phase.rows * p.stride_h + phase.h;
    let column = pixel % phase.columns * p.stride_w + phase.w;
    if n >= p.n || h >= p.h || column >= p.w || c >= p.c {
        return;
    }
    let i = ((n * p.h + h) * p.w + column) * p.c + c;
    let v = finished(i, sum);
    if VEC_C {
        x4[i / 4u] = to_map4(v);
        return;
    }
    x[i] = Map(v.x);
    if c + 1u < p.c {
        x[i + 1u] = Map(v.y);
    }
    if c + 2u < p.c {
        x[i + 2u] = Map(v.z);
    }
    if c + 3u < p.c {
        x[i + 3u] = Map(v.w);
    }
}

@compute @workgroup_size(SIZE)
fn main(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) local: u32,
) {
    let i = flat_workgroup(group, groups);
    let c_blocks = (p.c + 4u * COLUMNS - 1u) / (4u * COLUMNS);
    let c = i % c_blocks * 4u * COLUMNS;
    let grid = phase_of(0u);
    let blocks = (p.n * grid.rows * grid.columns + ROWS - 1u) / ROWS;
    let first = i / c_blocks % blocks * ROWS;
    phase = phase_of(i / (c_blocks * blocks));
    // Barriers need a count that is seen to be uniform, which a private variable's is not.
    let taps_down = taps_of(i / (c_blocks * blocks) / p.stride_w + p.pad_h, p.r, p.dilation_h, p.stride_h);
    let taps_along = taps_of(i / (c_blocks * blocks) % p.stride_w + p.pad_w, p.s, p.dilation_w, p.stride_w);
    down = taps_down;
    along = taps_along;
    let column = c + column_of(local);
    if p.has_bias != 0u {
        add_to_rows(vec4<f32>(b[column], b[column + 1u], b[column + 2u], b[column + 3u]), local);
    }
    let pixels = locate(first + row_of(local));
    var step = onward(Step(), step_of(local));
    for (var done = 0u; done < taps_down.count * taps_along.count * p.k; done += DEPTH) {
        if VEC_K {
            let at = under_tap(pixels, step);
            let values = mat4x4<f32>(load_y4(at.x), load_y4(at.y), load_y4(at.z), load_y4(at.w));
            let i = weight_of(step, column) / 4u;
            let weights = mat4x4<f32>(four(w4[i]), four(w4[i + p.k / 4u]), four(w4[i + p.k / 2u]), four(w4[i + p.k / 4u * 3u]));
            add_products(transpose(weights), transpose(values), local);
            step = onward(step, DEPTH);
        } else {
            var values: mat4x4<f32>;
            var weights: mat4x4<f32>;
            for (var j = 0u; j < 4u; j++) {
                let at = under_tap(pixels, step);
                values[j] = vec4<f32>(load_y(at.x), load_y(at.y), load_y(at.z), load_y(at.w));
                let i = weight_of(step, column);
                weights[j] = vec4<f32>(w[i], w[i + p.k], w[i + 2u * p.k], w[i + 3u * p.k]);
                step = onward(step, 1u);
            }
            add_products(weights, values, local);
            if DEPTH > 4u {
                step = onward(step, DEPTH - 4u);
            }
        }
    }
    store_tile(first, c, local);
}

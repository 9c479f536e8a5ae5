override ACTIVATION: u32 = 0u;
override VEC_C: bool = false;
override VEC_K: bool = false;

@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> y: array<f32>;
@group(0) @binding(2) var<storage, read> y4: array<Four>;
@group(0) @binding(3) var<storage, read> w: array<f32>;
@group(0) @binding(4) var<storage, read> w4: array<Four>;
@group(0) @binding(5) var<storage, read> b: array<f32>;
@group(0) @binding(6) var<storage, read_write> x: array<f32>;
@group(0) @binding(7) var<storage, read_write> x4: array<Four>;

// The phase's first pixel of x, the size of its grid of pixels, and the taps that reach it: first, distance, number.
struct Phase {
    h: u32,
    w: u32,
    rows: u32,
    columns: u32,
    r: u32,
    s: u32,
    r_by: u32,
    s_by: u32,
    r_count: u32,
    s_count: u32,
}

var<private> phase: Phase;

// The first tap t of `taps` with (at - t*dilation) a multiple of the stride.
fn first_tap(at: u32, taps: u32, dilation: u32, stride: u32) -> u32 {
    // Kept above 0 by whole strides: OpenGL leaves the remainder of a negative number undefined.
    let above = at + taps * dilation * stride;
    var t = 0u;
    while t < taps && (above - t * dilation) % stride != 0u {
        t++;
    }
    return t;
}

fn tap_distance(dilation: u32, stride: u32) -> u32 {
    var t = 1u;
    while t * dilation % stride != 0u {
        t++;
    }
    return t;
}

fn enter(number: u32) {
    phase.h = number / p.stride_w;
    phase.w = number % p.stride_w;
    phase.rows = (p.h + p.stride_h - 1u) / p.stride_h;
    phase.columns = (p.w + p.stride_w - 1u) / p.stride_w;
    phase.r = first_tap(phase.h + p.pad_h, p.r, p.dilation_h, p.stride_h);
    phase.s = first_tap(phase.w + p.pad_w, p.s, p.dilation_w, p.stride_w);
    phase.r_by = tap_distance(p.dilation_h, p.stride_h);
    phase.s_by = tap_distance(p.dilation_w, p.stride_w);
    phase.r_count = (p.r - phase.r + phase.r_by - 1u) / phase.r_by;
    phase.s_count = (p.s - phase.s + phase.s_by - 1u) / phase.s_by;
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
    let h = vec4<i32>(row % phase.rows * p.stride_h + phase.h + p.pad_h);
    let w = vec4<i32>(pixel % phase.columns * p.stride_w + phase.w + p.pad_w);
    // A pixel past the end is reached by no tap.
    return Pixels(vec4<i32>(row / phase.rows), select(vec4<i32>(-0x40000000), h, row < vec4<u32>(p.n * phase.rows)), w);
}

// A step: tap (r,s) and filter.
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
    next.s += select(0u, phase.s_by, wraps);
    let below = next.s >= p.s;
    next.s = select(next.s, phase.s, below);
    next.r += select(0u, phase.r_by, below);
    if DEPTH > 4u {
        while next.k >= p.k {
            next.k -= p.k;
            next.s += phase.s_by;
            if next.s >= p.s {
                next.s = phase.s;
                next.r += phase.r_by;
            }
        }
    }
    return next;
}

// Where the pixels' values of a step lie in y, -1 outside.
fn under_tap(pixels: Pixels, step: Step) -> vec4<i32> {
    let h = pixels.h - i32(step.r * p.dilation_h);
    let column = pixels.w - i32(step.s * p.dilation_w);
    let row = h / i32(p.stride_h);
    let along = column / i32(p.stride_w);
    let inside = (h >= vec4<i32>(0)) & (column >= vec4<i32>(0)) & (row < vec4<i32>(i32(p.p))) & (along < vec4<i32>(i32(p.q)));
    let at = ((pixels.n * i32(p.p) + row) * i32(p.q) + along) * i32(p.k) + i32(step.k);
    return select(vec4<i32>(-1), at, inside & vec4<bool>(step.r < p.r));
}

// Outside the map the first element is read and dropped: cheaper than a branch.
fn load_y4(at: i32) -> vec4<f32> {
    return select(four(y4[u32(max(at, 0)) / 4u]), vec4<f32>(0.0), at < 0);
}

fn load_y(at: i32) -> f32 {
    return select(y[u32(max(at, 0))], 0.0, at < 0);
}

fn store(pixel: u32, c: u32, sum: vec4<f32>) {
    let row = pixel / phase.columns;
    let n = row / phase.rows;
    let h = row % phase.rows * p.stride_h + phase.h;
    let column = pixel % phase.columns * p.stride_w + phase.w;
    if n >= p.n || h >= p.h || column >= p.w || c >= p.c {
        return;
    }
    let v = activate4(ACTIVATION, p.parameter, sum);
    let i = ((n * p.h + h) * p.w + column) * p.c + c;
    if VEC_C {
        x4[i / 4u] = stored(v);
        return;
    }
    x[i] = v.x;
    if c + 1u < p.c {
        x[i + 1u] = v.y;
    }
    if c + 2u < p.c {
        x[i + 2u] = v.z;
    }
    if c + 3u < p.c {
        x[i + 3u] = v.w;
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
    let pixels_of_phase = p.n * ((p.h + p.stride_h - 1u) / p.stride_h) * ((p.w + p.stride_w - 1u) / p.stride_w);
    let blocks = (pixels_of_phase + ROWS - 1u) / ROWS;
    let first = i / c_blocks % blocks * ROWS;
    enter(i / (c_blocks * blocks));
    let column = c + column_of(local);
    if p.has_bias != 0u {
        add_to_rows(vec4<f32>(b[column], b[column + 1u], b[column + 2u], b[column + 3u]), local);
    }
    let pixels = locate(first + row_of(local));
    var step = onward(Step(phase.r, phase.s, 0u), step_of(local));
    for (var done = 0u; done < phase.r_count * phase.s_count * p.k; done += DEPTH) {
        // Past the last tap the pixels' values are 0, and any weights will do.
        if VEC_K {
            let at = under_tap(pixels, step);
            let values = mat4x4<f32>(load_y4(at.x), load_y4(at.y), load_y4(at.z), load_y4(at.w));
            let i = select(0u, (((step.r * p.s + step.s) * p.c + column) * p.k + step.k) / 4u, step.r < p.r);
            let weights = mat4x4<f32>(four(w4[i]), four(w4[i + p.k / 4u]), four(w4[i + p.k / 2u]), four(w4[i + p.k / 4u * 3u]));
            add_products(transpose(weights), transpose(values), local);
            step = onward(step, DEPTH);
        } else {
            var values: mat4x4<f32>;
            var weights: mat4x4<f32>;
            for (var j = 0u; j < 4u; j++) {
                let at = under_tap(pixels, step);
                values[j] = vec4<f32>(load_y(at.x), load_y(at.y), load_y(at.z), load_y(at.w));
                let i = select(0u, ((step.r * p.s + step.s) * p.c + column) * p.k + step.k, step.r < p.r);
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
